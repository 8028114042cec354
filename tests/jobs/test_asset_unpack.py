"""Archives are opened without trust: nothing leaves the folder, no link is followed."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from jobs.asset_records import Take
from jobs.asset_unpack import deb_data_member, unpack
from pipelines.errors import BadDataError, UsageError

EVERYTHING = (Take(members="(.*)", to=r"\1"),)


def wheel(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_bytes(*members: tuple[str, bytes], links: tuple[tuple[str, str], ...] = (), mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def deb(path: Path, data: bytes, name: str = "data.tar.xz") -> Path:
    """A Debian package as deb(5) describes it, with an odd-sized member before the data."""
    control = tar_bytes(("./control", b"Package: pack\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"))
    content = b"!<arch>\n"
    for member, body in (("debian-binary", b"2.0\n"), ("control.tar.gz", control), (name, data)):
        content += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode()
        content += body + b"\n" * (len(body) % 2)
    path.write_bytes(content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "inner" / "folder"
    place.mkdir(parents=True)
    return place


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:/evil"])
@pytest.mark.parametrize("kind", ["wheel", "tar"])
def test_an_archive_with_a_member_that_leaves_the_folder_is_refused(
    tmp_path: Path, folder: Path, name: str, kind: str
) -> None:
    if kind == "wheel":
        archive = wheel(tmp_path / "x.whl", (name, b"!"))
    else:
        archive = tmp_path / "x.tar.gz"
        archive.write_bytes(tar_bytes((name, b"!")))
    with pytest.raises(BadDataError, match="stay inside the folder"):
        # Even where no rule asks for that member.
        unpack(archive, (Take(members="good", to="good"),), folder)
    assert list(folder.rglob("*")) == []
    assert not (tmp_path / "inner" / "evil").exists()


def test_a_rule_cannot_write_outside_either(tmp_path: Path, folder: Path) -> None:
    archive = wheel(tmp_path / "x.whl", ("a", b"!"))
    with pytest.raises(BadDataError, match="stay inside"):
        unpack(archive, (Take(members="a", to="../a"),), folder)


def test_links_are_not_written_and_not_followed(tmp_path: Path, folder: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(tar_bytes(("door/file", b"in"), links=(("door", str(outside)), ("alias", "door/file"))))
    assert unpack(archive, EVERYTHING, folder) == 1
    assert list(outside.iterdir()) == []
    assert (folder / "door" / "file").read_bytes() == b"in"
    assert not (folder / "alias").exists()


def test_the_first_rule_that_matches_decides_and_unmatched_members_stay_out(tmp_path: Path, folder: Path) -> None:
    archive = wheel(tmp_path / "x.whl", ("p/a.png", b"a"), ("p/b.png", b"b"), ("p/code.py", b"c"), ("p/", b""))
    rules = (Take(members=r"p/(a)\.png", to=r"first/\1"), Take(members=r"p/(.)\.png", to=r"second/\1"))
    assert unpack(archive, rules, folder) == 2
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert written == ["first/a", "second/b"]


def test_two_members_for_one_place_are_refused(tmp_path: Path, folder: Path) -> None:
    archive = wheel(tmp_path / "x.whl", ("a/x", b"1"), ("b/x", b"2"))
    with pytest.raises(BadDataError, match="expected one member for x, got a second, b/x"):
        unpack(archive, (Take(members=".*/(x)", to=r"\1"),), folder)


def test_a_rule_that_matches_nothing_is_named(tmp_path: Path, folder: Path) -> None:
    archive = wheel(tmp_path / "x.whl", ("a", b"1"))
    with pytest.raises(BadDataError, match=r"expected members matching 'b\+', got none"):
        unpack(archive, (*EVERYTHING, Take(members="b+", to="b")), folder)


@pytest.mark.parametrize("name", ["x.whl", "x.tar.gz", "x.deb"])
def test_a_broken_archive_is_named(tmp_path: Path, folder: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(BadDataError, match=name):
        unpack(tmp_path / name, EVERYTHING, folder)


def test_a_cut_off_source_archive_is_named(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(tar_bytes(("a", os.urandom(100_000)))[:50_000])
    with pytest.raises(BadDataError, match=r"x\.tar\.gz: expected a readable archive"):
        unpack(archive, EVERYTHING, folder)


@pytest.mark.parametrize("has_dpkg", [True, False])
def test_a_debian_package_opens_with_and_without_dpkg(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, has_dpkg: bool
) -> None:
    archive = deb(tmp_path / "x.deb", tar_bytes(("./usr/share/a.png", b"a"), ("./usr/b", b"b"), mode="w:xz"))
    if not has_dpkg:
        monkeypatch.setenv("PATH", "")
    assert unpack(archive, (Take(members=r"usr/share/(.*\.png)", to=r"images/\1"),), folder) == 1
    assert (folder / "images" / "a.png").read_bytes() == b"a"


def test_a_debian_package_in_zstd_asks_for_dpkg(tmp_path: Path) -> None:
    archive = deb(tmp_path / "x.deb", b"(zstd)", name="data.tar.zst")
    with pytest.raises(UsageError, match="Install dpkg"):
        deb_data_member(archive)


def test_a_debian_package_without_data_is_named(tmp_path: Path) -> None:
    archive = deb(tmp_path / "x.deb", b"", name="other")
    with pytest.raises(BadDataError, match=r"expected a member data\.tar"):
        deb_data_member(archive)

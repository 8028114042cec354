"""The cache of assets, from a made-up registry in a folder; whole folders or none."""

import hashlib
import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.asset_download import OnBytes
from jobs.asset_fetch import asset_path, fetch_asset, payload_of
from jobs.asset_records import Asset, Package, Payload, Take
from jobs.asset_steps import STEPS
from pipelines.errors import BadDataError, UsageError

PICTURES = {"pack/data/sun.png": b"sun", "pack/data/moon.png": b"moon", "pack/code.py": b"raise SystemExit"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "assets"


class Registry:
    """A folder of package files; counts what is asked of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.num_downloads = 0

    def add(self, members: dict[str, bytes], file_name: str = "pack-1.0-py3-none-any.whl") -> str:
        with zipfile.ZipFile(self.folder / file_name, "w") as wheel:
            for name, content in members.items():
                wheel.writestr(zipfile.ZipInfo(name), content)
        return hashlib.sha256((self.folder / file_name).read_bytes()).hexdigest()

    def download(self, package: Package, folder: Path, on_bytes: OnBytes) -> Path:
        self.num_downloads += 1
        path = Path(shutil.copy(self.folder / package.file_name, folder))
        on_bytes(path.stat().st_size)
        return path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def an_asset(sha256: str, **changes: object) -> Asset:
    package = Package(
        registry="pypi",
        name="pack",
        version="1.0",
        file_name="pack-1.0-py3-none-any.whl",
        sha256=sha256,
        size_bytes=1,
        takes=(Take(members=r"pack/data/(.*\.png)", to=r"images/\1"),),
    )
    asset = Asset(name="sky", role="train", purpose="Two pictures.", licence="CC0", packages=(package,))
    return replace(asset, **changes)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_fetched_asset_has_the_wanted_files_and_a_record_and_no_code(registry: Registry, cache: Path) -> None:
    asset = an_asset(registry.add(PICTURES))
    num_bytes: list[int] = []
    folder = fetch_asset(asset, on_bytes=num_bytes.append, download=registry.download)
    assert folder == cache / "sky"
    assert asset_path("sky", (asset,)) == folder
    assert sum(num_bytes) == (registry.folder / "pack-1.0-py3-none-any.whl").stat().st_size
    files = files_of(folder)
    record = json.loads(files.pop("asset.json"))
    assert files == {"images/sun.png": b"sun", "images/moon.png": b"moon"}
    assert record["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert (record["num_files"], record["num_bytes"], record["licence"]) == (2, 7, "CC0")
    assert record["sources"][0]["version"] == "1.0"
    assert record["sources"][0]["sha256"] == asset.packages[0].sha256


def test_the_second_fetch_downloads_nothing_and_changes_nothing(registry: Registry) -> None:
    asset = an_asset(registry.add(PICTURES))
    folder = fetch_asset(asset, download=registry.download)
    before = folder.stat().st_mtime_ns
    assert fetch_asset(asset, download=registry.download) == folder
    assert registry.num_downloads == 1
    assert folder.stat().st_mtime_ns == before
    fetch_asset(asset, download=registry.download, force=True)
    assert registry.num_downloads == 2


def test_an_absent_asset_is_named_with_the_command_that_fetches_it() -> None:
    with pytest.raises(UsageError, match="Run `spae assets fetch minilm`"):
        asset_path("minilm")
    with pytest.raises(UsageError, match="Did you mean 'minilm'"):
        asset_path("minillm")


def test_a_file_with_another_hash_is_refused_and_leaves_nothing(registry: Registry, cache: Path) -> None:
    pinned = an_asset(registry.add(PICTURES))
    got = registry.add({**PICTURES, "pack/data/sun.png": b"another"})
    with pytest.raises(BadDataError) as caught:
        fetch_asset(pinned, download=registry.download)
    assert pinned.packages[0].sha256 in str(caught.value)
    assert got in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_fetch_that_dies_half_way_leaves_nothing_and_the_next_one_succeeds(registry: Registry, cache: Path) -> None:
    asset = an_asset(registry.add(PICTURES))

    def break_off(package: Package, folder: Path, on_bytes: OnBytes) -> Path:
        registry.download(package, folder, on_bytes)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        fetch_asset(asset, download=break_off)
    assert list(cache.iterdir()) == []
    assert (fetch_asset(asset, download=registry.download) / "images" / "sun.png").exists()


def test_what_a_killed_fetch_left_is_no_asset_and_goes_after_a_day(registry: Registry, cache: Path) -> None:
    asset = an_asset(registry.add(PICTURES))
    for name, age_seconds in ((".partial-sky-old", 2 * 24 * 3600), (".partial-sky-new", 60)):
        (cache / name / "work").mkdir(parents=True)
        os.utime(cache / name, (time.time() - age_seconds,) * 2)
    with pytest.raises(UsageError):
        asset_path("sky", (asset,))
    fetch_asset(asset, download=registry.download)
    assert sorted(path.name for path in cache.iterdir()) == [".partial-sky-new", "sky"]


def test_a_folder_without_a_whole_record_is_fetched_again(registry: Registry, cache: Path) -> None:
    asset = an_asset(registry.add(PICTURES))
    folder = fetch_asset(asset, download=registry.download)
    (folder / "asset.json").write_text('{"schema": ')
    fetch_asset(asset, download=registry.download)
    assert registry.num_downloads == 2
    assert asset_path("sky", (asset,)) == folder


def test_a_new_recipe_replaces_the_folder_and_until_then_the_old_one_is_refused(registry: Registry) -> None:
    old = an_asset(registry.add(PICTURES))
    folder = fetch_asset(old, download=registry.download)
    (folder / "left_over").touch()
    new = replace(old, recipe=2)
    with pytest.raises(UsageError, match="one of another version"):
        asset_path("sky", (new,))
    fetch_asset(new, download=registry.download)
    assert not (asset_path("sky", (new,)) / "left_over").exists()


def test_two_fetches_at_once_end_with_one_whole_folder(registry: Registry, cache: Path) -> None:
    asset = an_asset(registry.add(PICTURES))
    both_are_downloading = threading.Barrier(2, timeout=10)

    def download(package: Package, folder: Path, on_bytes: OnBytes) -> Path:
        both_are_downloading.wait()
        return registry.download(package, folder, on_bytes)

    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch_asset(asset, download=download))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [cache / "sky"] * 2
    assert [path.name for path in cache.iterdir()] == ["sky"]
    assert (cache / "sky" / "images" / "moon.png").read_bytes() == b"moon"


def test_an_asset_made_of_another_one_fetches_that_first(
    registry: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap_colours(folder: Path, source: Path) -> None:
        (folder / "night.png").write_bytes((source / "images" / "sun.png").read_bytes()[::-1])

    monkeypatch.setitem(STEPS, "swap-colours", swap_colours)
    base = an_asset(registry.add(PICTURES))
    night = Asset(name="night", role="train", purpose="", licence="CC0", needs="sky", steps=("swap-colours",))
    fetch_asset(night, download=registry.download, catalogue=(base, night))
    assert (asset_path("night", (base, night)) / "night.png").read_bytes() == b"nus"
    assert sorted(path.name for path in cache.iterdir()) == ["night", "sky"]


def test_a_pinned_file_with_another_hash_is_refused(registry: Registry, cache: Path) -> None:
    right = hashlib.sha256(b"moon").hexdigest()
    sha256 = registry.add(PICTURES)
    fetch_asset(an_asset(sha256, pinned_files=(("images/moon.png", right),)), download=registry.download)
    with pytest.raises(BadDataError, match=right):
        fetch_asset(
            an_asset(sha256, name="other", pinned_files=(("images/sun.png", right),)),
            download=registry.download,
        )
    assert not (cache / "other").exists()


def a_debian_asset(registry: Registry, served: dict[str, bytes]) -> Asset:
    """Pinned to PICTURES as version 1.0, while the release serves `served` as 2.0 (here as a zip)."""
    pinned = an_asset(registry.add(PICTURES))
    folder = fetch_asset(replace(pinned, name="pinned"), download=registry.download)
    (folder / "asset.json").unlink()
    registry.add(served, "pack_2.0_all.whl")
    package = replace(pinned.packages[0], registry="debian")
    return replace(pinned, packages=(package,), payload=payload_of(folder))


def serve_version_two(registry: Registry) -> Callable[[Package, Path, OnBytes], Path]:
    return lambda package, folder, on_bytes: registry.download(
        replace(package, file_name="pack_2.0_all.whl"), folder, on_bytes
    )


def test_another_debian_version_with_the_pinned_files_is_accepted(registry: Registry) -> None:
    asset = a_debian_asset(registry, {**PICTURES, "pack/changelog": b"nothing to see"})
    folder = fetch_asset(asset, download=serve_version_two(registry))
    record = json.loads((folder / "asset.json").read_text())
    assert record["sources"][0]["version"] == "2.0"
    assert record["sources"][0]["sha256"] != asset.packages[0].sha256


def test_another_debian_version_with_other_files_needs_to_be_asked_for(registry: Registry) -> None:
    asset = a_debian_asset(registry, {**PICTURES, "pack/data/star.png": b"star"})
    with pytest.raises(BadDataError, match=r"expected 2 files, 7 bytes.*got 3 files, 11 bytes.*--accept-other"):
        fetch_asset(asset, download=serve_version_two(registry))
    folder = fetch_asset(asset, download=serve_version_two(registry), accept_other_version=True)
    assert (folder / "images" / "star.png").exists()


def test_the_payload_hash_depends_on_names_and_contents_but_not_on_the_order_of_writing(
    tmp_path: Path,
) -> None:
    def folder_with(name: str, files: dict[str, bytes]) -> Payload:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return payload_of(tmp_path / name)

    # "a-b" sorts before "a/b" as text and after it as a path: the hash must not depend on who sorts.
    first = folder_with("1", {"a/b": b"x", "a-b": b"y"})
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in (("a-b", b"y"), ("a/b", b"x")))
    assert first == Payload(num_files=2, num_bytes=2, sha256=hashlib.sha256(lines.encode()).hexdigest())
    assert folder_with("2", {"a-b": b"y", "a/b": b"x"}) == first
    assert folder_with("3", {"a/b": b"y", "a-b": b"x"}) != first

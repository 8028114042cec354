"""A set of square crops to train on, cut once from a corpus: small, sharded, the same bytes every time.

Several crops a picture at several scales, more from larger pictures; animated pictures give some of their frames.
Flips cost no bytes: a training draws them. The same inputs and settings give the same files, whatever the number of
threads.

A crop set is a folder: `part-00000.parquet`, … (schema `crops/1`, WebP), `sources.jsonl` (a line a picture: uri,
crops or the reason why there are none), `unreadable.txt` (only the latter), `crops.json` (settings, counts, hashes;
written last, so its presence means the set is whole). `crop_set` opens it.

Letters: N crops, S side of a crop in pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from pipelines.errors import BadDataError
from pipelines.parquet_files import to_parquet
from pipelines.readers import InputEntry
from pipelines.stages.read_inputs import ReadInputs, error_class_of
from pipelines.training.crop_cutting import CropConfig, cut_picture, to_webp
from pipelines.training.crop_set import SUMMARY_FILE, CropSet, is_crop_set, open_crops
from schemas.crops import CROPS_SCHEMA
from schemas.versions import CROPS

logger = logging.getLogger(__name__)

SOURCES_FILE, UNREADABLE_FILE = "sources.jsonl", "unreadable.txt"
CROPS_PER_PART = 4096


def make_crops(
    entries: Iterable[InputEntry],
    folder: Path,
    config: CropConfig,
    *,
    num_threads: int = 2,
    on_picture: Callable[[str], None] | None = None,
) -> CropSet:
    """Cut the crops of a corpus, unless the same set is already there.

    Args:
        entries: Pictures as listed: files, or records of containers. Order does not matter.
        folder: Where the set goes.
        config: How to cut.
        num_threads: Pictures decoded at once.
        on_picture: Called with each uri as it is done.

    Returns:
        The set.

    Raises:
        BadDataError: If no picture can be read, or no crop has the detail asked for. Single unreadable pictures are
            listed in `sources.jsonl` and `unreadable.txt` instead.
    """
    ordered = sorted({entry.uri: entry for entry in entries}.values(), key=_place)
    stamps = json.dumps([(entry.uri, entry.size_bytes, entry.etag_or_mtime) for entry in ordered])
    wanted = {"config": asdict(config), "inputs_sha256": _sha256(stamps.encode()), "num_inputs": len(ordered)}
    if is_crop_set(folder):
        found = json.loads((folder / SUMMARY_FILE).read_text())
        if {key: found.get(key) for key in wanted} == wanted and found.get("schema") == CROPS:
            return open_crops(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    for old in folder.glob("part-*.parquet"):
        old.unlink()
    writer = _PartWriter(folder)
    unreadable: list[str] = []
    with (folder / SOURCES_FILE).open("w") as sources:
        for source, (uri, crops, reason) in enumerate(_cut_all(ordered, config, num_threads)):
            writer.add(source, crops)
            sources.write(json.dumps({"uri": uri, "crops": len(crops), "error": reason}, ensure_ascii=False) + "\n")
            if reason:
                unreadable.append(f"{uri}\t{reason}\n")
                logger.warning("left out of training: %s: %s", uri, reason)
            if on_picture:
                on_picture(uri)
    (folder / UNREADABLE_FILE).write_text("".join(unreadable))
    writer.flush()
    if not writer.num_crops:
        if num_read := len(ordered) - len(unreadable):
            raise BadDataError(
                f"training pictures: expected crops of at least {config.min_webp_bytes} bytes, got none of "
                f"{num_read} pictures. Lower min_webp_bytes."
            )
        raise BadDataError(
            f"training pictures: expected at least one readable of {len(ordered)}, got none. "
            f"See {folder / UNREADABLE_FILE} for the reasons."
        )
    summary = {
        "schema": CROPS,
        **wanted,
        "num_crops": writer.num_crops,
        "num_unreadable": len(unreadable),
        "size_bytes": sum(part["size_bytes"] for part in writer.parts),
        "parts": writer.parts,
    }
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return open_crops(folder)


class _PartWriter:
    """Collects crops and writes a part whenever it is full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[dict[str, Any]] = []
        self.num_crops = 0
        self._rows: list[tuple[int, bytes]] = []

    def add(self, source: int, crops: list[bytes]) -> None:
        self._rows.extend((source, crop) for crop in crops)
        self.num_crops += len(crops)
        while len(self._rows) >= CROPS_PER_PART:
            self._write(self._rows[:CROPS_PER_PART])
            self._rows = self._rows[CROPS_PER_PART:]

    def flush(self) -> None:
        if self._rows:
            self._write(self._rows)
            self._rows = []

    def _write(self, rows: list[tuple[int, bytes]]) -> None:
        sources, crops = zip(*rows, strict=True)
        content = to_parquet(pa.table({"source": sources, "webp": crops}, schema=CROPS_SCHEMA))
        name = f"part-{len(self.parts):05d}.parquet"
        (self.folder / name).write_bytes(content)
        self.parts.append(
            {"name": name, "num_crops": len(rows), "size_bytes": len(content), "sha256": _sha256(content)}
        )


def _place(entry: InputEntry) -> tuple[str, int, int, str]:
    """Where it lies: records of a container one after the other, so that it is read once from end to end."""
    record = entry.record
    if record is None:
        return entry.uri, 0, 0, ""
    return record.container, record.row_group or 0, record.row or record.offset_bytes or 0, entry.uri


def _cut_all(
    entries: list[InputEntry], config: CropConfig, num_threads: int
) -> Iterator[tuple[str, list[bytes], str | None]]:
    reader = ReadInputs()

    def cut(entry: InputEntry) -> tuple[str, list[bytes], str | None]:
        try:
            content = reader.read_one(asdict(entry))
        except OSError as error:
            return entry.uri, [], f"{error_class_of(error)}: {error}"
        crops, reason = cut_picture(PurePosixPath(entry.uri).name, content, config)
        encoded = (to_webp(crop, config.webp_quality) for crop in crops)
        return entry.uri, [crop for crop in encoded if len(crop) >= config.min_webp_bytes], reason

    with ThreadPoolExecutor(num_threads) as pool:
        # In groups, so that only a few pictures' crops wait in memory.
        for start in range(0, len(entries), 4 * num_threads):
            yield from pool.map(cut, entries[start : start + 4 * num_threads])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

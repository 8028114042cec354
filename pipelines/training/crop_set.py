"""A finished set of crops: open it, check it, unpack it into the array that a training reads.

Letters: N crops, S side of a crop in pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadDataError
from pipelines.parquet_files import read_parquet
from pipelines.training.crop_cutting import from_webp
from schemas.versions import CROPS, check_schema

SUMMARY_FILE = "crops.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSet:
    """A finished crop set.

    Attributes:
        folder: Where it lies.
        image_size_px: S.
        num_crops: N.
        num_unreadable: Pictures that gave none.
        size_bytes: Of its parts together.
        parts: Name and sha256 of each part, in order.
    """

    folder: Path
    image_size_px: int
    num_crops: int
    num_unreadable: int
    size_bytes: int
    parts: tuple[tuple[str, str], ...]

    @property
    def sha256(self) -> str:
        """Identity of the crops: what a training depends on."""
        return hashlib.sha256("".join(digest for _, digest in self.parts).encode()).hexdigest()


def is_crop_set(folder: str | Path) -> bool:
    """Whether a finished crop set lies there."""
    return (Path(folder) / SUMMARY_FILE).is_file()


def open_crops(folder: Path) -> CropSet:
    """Open a finished crop set.

    Raises:
        BadDataError: If the folder holds none or an unfinished one.
        SchemaError: If it was written by another version.
    """
    if not is_crop_set(folder):
        raise BadDataError(f"crop set {folder}: expected {SUMMARY_FILE}, got none. Make the set again.")
    summary = json.loads((folder / SUMMARY_FILE).read_text())
    check_schema(summary.get("schema"), CROPS, where=str(folder / SUMMARY_FILE))
    return CropSet(
        folder=folder,
        image_size_px=summary["config"]["image_size_px"],
        num_crops=summary["num_crops"],
        num_unreadable=summary["num_unreadable"],
        size_bytes=summary["size_bytes"],
        parts=tuple((part["name"], part["sha256"]) for part in summary["parts"]),
    )


def unpack_crops(crops: CropSet, cache: Path) -> NDArray[np.uint8]:
    """Decode a crop set into one array on disk, unless it is already there.

    Args:
        crops: The set.
        cache: Folder for the array; about S · S · 3 bytes a crop.

    Returns:
        uint8 (N, S, S, 3), memory-mapped.

    Raises:
        BadDataError: If a part is absent or is not the one that was written.
    """
    path = cache / f"crops-{crops.sha256[:12]}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        shape = (crops.num_crops, crops.image_size_px, crops.image_size_px, 3)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for row, encoded in enumerate(_stored(crops)):
            array[row] = from_webp(encoded)
        array.flush()
        del array
        partial.replace(path)
    pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return pixels


def _stored(crops: CropSet) -> Iterator[bytes]:
    for name, expected in crops.parts:
        path = crops.folder / name
        content = path.read_bytes() if path.is_file() else b""
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            got = f"sha256 {found}" if content else "no file"
            raise BadDataError(f"{path}: expected sha256 {expected}, got {got}. Copy or make the crop set again.")
        for value in read_parquet(content)["webp"]:
            yield value.as_py()

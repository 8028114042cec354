"""A deterministic set of square crops to train on, cut once from a corpus and kept as one array.

Several crops a picture at several scales, more from larger pictures; animated pictures give some of their
frames. The same inputs and settings give the same bytes, whatever the number of threads.

A crop set is a folder: `crops.npy` (uint8, N × S × S × 3, RGB), `sources.jsonl` (a line a picture: uri, crops
or the reason why there are none), `crops.json` (settings and counts; written last, so its presence means the
set is whole).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipelines.errors import BadDataError

logger = logging.getLogger(__name__)

SUMMARY_FILE, CROPS_FILE, SOURCES_FILE = "crops.json", "crops.npy", "sources.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class CropConfig:
    """How crops are cut.

    Attributes:
        image_size_px: S, side of a crop after resizing.
        min_crops: Crops of a small picture or frame; the first is the whole centre square.
        max_crops: Crops of a large picture.
        crops_per_megapixel: Between the two bounds.
        min_scale: Smallest crop side as a share of the picture's shorter side; sides are log-uniform. A crop
            is never cut smaller than S where the picture is large enough.
        frame_step: Of an animated picture, every n-th frame is used.
        seed: Of the crops; each picture's own draw also depends on its uri.
    """

    image_size_px: int = 128
    min_crops: int = 4
    max_crops: int = 120
    crops_per_megapixel: float = 24.0
    min_scale: float = 0.12
    frame_step: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CropSet:
    """Crops read from disk.

    Attributes:
        images: uint8 (N, S, S, 3), memory-mapped.
        folder: Where they lie.
    """

    images: NDArray[np.uint8]
    folder: Path


def load_crops(folder: Path) -> CropSet:
    """Open a finished crop set.

    Raises:
        BadDataError: If the folder holds none or an unfinished one.
    """
    if not (folder / SUMMARY_FILE).is_file():
        raise BadDataError(f"crop set {folder}: expected {SUMMARY_FILE}, got none. Make the set again.")
    return CropSet(images=np.load(folder / CROPS_FILE, mmap_mode="r"), folder=folder)


def make_crops(
    uris: Iterable[str],
    folder: Path,
    config: CropConfig,
    *,
    num_threads: int = 2,
    on_picture: Callable[[str], None] | None = None,
) -> CropSet:
    """Cut the crops of a corpus, unless the same set is already there.

    Args:
        uris: Pictures; any fsspec url. Order does not matter.
        folder: Where the set goes.
        config: How to cut.
        num_threads: Pictures decoded at once.
        on_picture: Called with each uri as it is done.

    Returns:
        The set.

    Raises:
        BadDataError: If no picture can be read. Single unreadable pictures are listed in `sources.jsonl`
            instead.
    """
    uris = sorted(set(uris))
    summary = {"config": asdict(config), "inputs_sha256": _hash(uris), "num_inputs": len(uris)}
    if (folder / SUMMARY_FILE).is_file():
        found = json.loads((folder / SUMMARY_FILE).read_text())
        if {key: found.get(key) for key in summary} == summary:
            return load_crops(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    raw, count, unreadable = folder / "crops.raw", 0, 0
    with raw.open("wb") as crops, (folder / SOURCES_FILE).open("w") as sources:
        for uri, cut, reason in _cut_all(uris, config, num_threads):
            crops.write(cut.tobytes())
            sources.write(json.dumps({"uri": uri, "crops": len(cut), "error": reason}) + "\n")
            count += len(cut)
            if reason:
                unreadable += 1
                logger.warning("left out of training: %s: %s", uri, reason)
            if on_picture:
                on_picture(uri)
    if not count:
        raw.unlink()
        raise BadDataError(
            f"training pictures: expected at least one readable of {len(uris)}, got none. "
            f"See {folder / SOURCES_FILE} for the reasons."
        )
    side = config.image_size_px
    array = np.lib.format.open_memmap(folder / CROPS_FILE, mode="w+", dtype=np.uint8, shape=(count, side, side, 3))
    array.reshape(-1)[:] = np.memmap(raw, dtype=np.uint8, mode="r")
    array.flush()
    raw.unlink()
    summary |= {"num_crops": count, "num_unreadable": unreadable}
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return load_crops(folder)


def delete_crops(folder: Path) -> None:
    """Remove a crop set."""
    shutil.rmtree(folder, ignore_errors=True)


def _cut_all(
    uris: list[str], config: CropConfig, num_threads: int
) -> Iterator[tuple[str, NDArray[np.uint8], str | None]]:
    with ThreadPoolExecutor(num_threads) as pool:
        # In groups, so that only a few pictures' crops wait in memory.
        for start in range(0, len(uris), 4 * num_threads):
            group = uris[start : start + 4 * num_threads]
            yield from pool.map(lambda uri: (uri, *cut_picture(uri, config)), group)


def cut_picture(uri: str, config: CropConfig) -> tuple[NDArray[np.uint8], str | None]:
    """Cut one picture's crops, uint8 (n, S, S, 3), and say why there are none if it cannot be read."""
    random = np.random.default_rng([config.seed, int(_hash([Path(uri).name])[:12], 16)])
    side = config.image_size_px
    crops: list[NDArray[np.uint8]] = []
    try:
        with fsspec.open(uri, "rb") as file:
            image = Image.open(io.BytesIO(file.read()))
        for frame in range(0, getattr(image, "n_frames", 1), config.frame_step):
            image.seek(frame)
            crops.extend(_crops_of(_opaque_rgb(ImageOps.exif_transpose(image)), config, random))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        return np.zeros((0, side, side, 3), np.uint8), f"{type(error).__name__}: {error}"
    return np.stack(crops), None


def _opaque_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    return image.convert("RGB")


def _crops_of(image: Image.Image, config: CropConfig, random: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    width, height = image.size
    shorter, target = min(width, height), config.image_size_px
    megapixels = width * height / 1e6
    number = int(np.clip(round(megapixels * config.crops_per_megapixel), config.min_crops, config.max_crops))
    smallest = min(shorter, max(target, config.min_scale * shorter))
    for index in range(number):
        side = shorter if index == 0 else round(np.exp(random.uniform(np.log(smallest), np.log(shorter))))
        left = (width - side) / 2 if index == 0 else random.integers(0, width - side + 1)
        top = (height - side) / 2 if index == 0 else random.integers(0, height - side + 1)
        box = (float(left), float(top), float(left + side), float(top + side))
        crop = image.resize((target, target), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
        yield np.asarray(crop)


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()

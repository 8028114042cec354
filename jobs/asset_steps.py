"""What is done once to the unpacked files of an asset, by name.

A step is a function of (folder to write into, folder to read from); the two are one
for an asset made of packages.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from jobs.asset_convert import (
    convert_efficientnet_lite0,
    convert_i3d,
    convert_lpips,
    convert_nsfwjs,
    export_clip_text_vectors,
)
from jobs.asset_gguf import export_llama_folder, export_tokenizer_and_embeddings

Step = Callable[[Path, Path], None]


def is_animated_webp(path: Path) -> bool:
    """Whether a WebP file says in its header that it moves (extended format, animation bit)."""
    with path.open("rb") as file:
        head = file.read(21)
    return len(head) == 21 and head[8:16] == b"WEBPVP8X" and bool(head[20] & 0x02)


def sort_animated(folder: Path, source: Path) -> None:
    """WebP files of `unsorted/` to `images/` if they stand still and to `clips/` if they move."""
    for path in sorted((source / "unsorted").iterdir()):
        target = folder / ("clips" if is_animated_webp(path) else "images") / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    (source / "unsorted").rmdir()


def keep_largest_size(folder: Path, source: Path) -> None:
    """Of a folder's files `<width>x<height>.*`, one picture in many sizes, keep the one with most pixels."""
    del folder
    for place in sorted({path.parent for path in (source / "images").rglob("*x*.*")}):
        for path in sorted(place.iterdir(), key=_num_pixels)[:-1]:
            path.unlink()


def _num_pixels(path: Path) -> int:
    width, height = path.stem.split("x")
    return int(width) * int(height)


def join_parts(folder: Path, source: Path) -> None:
    """`parts/NAME.part00`, `.part01`, … to `NAME`."""
    parts = sorted((source / "parts").iterdir())
    with (folder / parts[0].name.rpartition(".part")[0]).open("wb") as out:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, out, 1 << 20)
    shutil.rmtree(source / "parts")


STEPS: dict[str, Step] = {
    "convert-efficientnet-lite0": convert_efficientnet_lite0,
    "convert-i3d": convert_i3d,
    "convert-lpips": convert_lpips,
    "convert-nsfwjs": convert_nsfwjs,
    "export-clip-text-vectors": export_clip_text_vectors,
    "export-llama-folder": export_llama_folder,
    "export-tokenizer-and-embeddings": export_tokenizer_and_embeddings,
    "join-parts": join_parts,
    "keep-largest-size": keep_largest_size,
    "sort-animated": sort_animated,
}

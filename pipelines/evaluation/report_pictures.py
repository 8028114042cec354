"""The pictures of a report: originals read again, word pyramids decoded, and the distance between the two.

Legend: B samples, S side of the model's picture in pixels, N layers written.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import UsageError
from pipelines.evaluation.report_data import SampleRow
from pipelines.runs.run_config import RunConfig
from pipelines.stages.image_decoding import decode_image
from pipelines.stages.image_faults import UnreadableImageError
from pipelines.stages.read_inputs import ReadInputs
from spae_core.errors import ModelError
from spae_core.metrics import psnr_db
from spae_core.structs import TokenPyramid
from spae_core.tokenizer import SpaeTokenizer

Pixels = NDArray[np.uint8]

_BATCH_ROWS = 8
_LOSSLESS_UP_TO_PX = 128  # above it a page of lossless pictures would outgrow what a browser opens with ease


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """The original of a sample, or why there is none.

    Attributes:
        pixels: uint8 (S, S, 3), as the model saw it, or None.
        absent: One sentence for the page, "" if the pixels are there.
    """

    pixels: Pixels | None
    absent: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A sample decoded from its first layers.

    Attributes:
        num_layers: Layers used, 1 to N.
        pixels: uint8 (S, S, 3).
        psnr_db: Against the original as the model saw it; None without one.
    """

    num_layers: int
    pixels: Pixels
    psnr_db: float | None


def load_model_of(config: RunConfig, model: str | None) -> SpaeTokenizer:
    """Load the model that wrote a run, and make sure that it is the one.

    Args:
        config: The run's config.
        model: Name or folder to load instead of the recorded one, for a model that has moved.

    Raises:
        ModelError: If it cannot be loaded, or has other weights or another codebook than the run.
    """
    tokenizer = SpaeTokenizer.from_pretrained(model or config.model)
    pairs = (
        ("codebook", config.settings.codebook_sha256, tokenizer.codebook_sha256),
        ("weights", config.settings.model_sha256, tokenizer.model_sha256),
    )
    for what, expected, got in pairs:
        if expected != got:
            raise ModelError(
                f"{what} of model {model or config.model}: expected {expected[:12]}, with which the run "
                f"was made, got {got[:12]}. Name the right model with --model."
            )
    return tokenizer


def choose_prefixes(grids: Sequence[tuple[int, int]], asked: Sequence[int]) -> tuple[int, ...]:
    """Decide from how many layers to decode.

    Args:
        grids: Grid of each layer written, N of them.
        asked: What the user wants, or nothing.

    Returns:
        The prefixes asked for; else the last two that end in a layer as fine as the finest one written.

    Raises:
        UsageError: If one asked for is not in 1 to N.
    """
    if asked:
        wrong = [number for number in asked if not 1 <= number <= len(grids)]
        if wrong:
            raise UsageError(f"layers: expected 1 to {len(grids)}, got {wrong[0]}. The run has no more layers.")
        return tuple(sorted(set(asked)))
    whole = [number for number, grid in enumerate(grids, start=1) if grid == grids[-1]]
    return tuple(whole[-2:])


def read_original(row: SampleRow, side_px: int) -> Original:
    """Read the original of a sample again, as it was prepared for the model.

    Args:
        row: The sample.
        side_px: S.

    Returns:
        Its pixels; or why there are none: it is gone, is not the same file any more, or cannot be decoded.
    """
    try:
        content = ReadInputs().read_one({"uri": row.uri, "size_bytes": row.size_bytes, "record": row.record})
    except FileNotFoundError:
        return Original(pixels=None, absent="Original missing: it is no longer there.")
    except OSError as error:
        return Original(pixels=None, absent=f"Original missing: it cannot be read ({error}).")
    if hashlib.sha256(content).hexdigest() != row.content_sha256:
        return Original(pixels=None, absent="Original missing: another picture has taken its place.")
    try:
        return Original(pixels=decode_image(content, image_size_px=side_px).pixels)
    except UnreadableImageError as error:
        return Original(pixels=None, absent=f"Original missing: it cannot be decoded ({error.fault.value}).")


def decode_samples(
    tokenizer: SpaeTokenizer,
    rows: Sequence[SampleRow],
    originals: Sequence[Original],
    grids: Sequence[tuple[int, int]],
    prefixes: Sequence[int],
) -> list[tuple[Decoded, ...]]:
    """Decode each sample from each prefix.

    Args:
        tokenizer: The model that made the tokens.
        rows: B samples.
        originals: Their originals, to measure against.
        grids: Grid of each layer written.
        prefixes: Numbers of layers to decode from.

    Returns:
        B tuples, one entry a prefix.
    """
    decoded: list[tuple[Decoded, ...]] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows[start : start + _BATCH_ROWS]
        codes = tuple(
            torch.tensor([row.code_indices[layer] for row in batch]).view(len(batch), *grid)
            for layer, grid in enumerate(grids)
        )
        pyramid = TokenPyramid(code_indices=codes, codebook=tokenizer.codebook)
        images = [tokenizer.detokenize(pyramid, num_layers=number).cpu() for number in prefixes]
        for index, original in enumerate(originals[start : start + _BATCH_ROWS]):
            decoded.append(
                tuple(
                    _decoded(image[index], original.pixels, number)
                    for image, number in zip(images, prefixes, strict=True)
                )
            )
    return decoded


def _decoded(image: torch.Tensor, original: Pixels | None, num_layers: int) -> Decoded:
    distance = None
    if original is not None:
        target = torch.from_numpy(original.copy()).permute(2, 0, 1).float() / 255
        distance = float(psnr_db(image[None], target[None]))
    pixels = (image.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return Decoded(num_layers=num_layers, pixels=pixels, psnr_db=distance)


def data_uri(pixels: Pixels) -> str:
    """A picture as a WebP data URI: lossless up to 128 px a side, so every pixel is as it was."""
    side = max(pixels.shape[:2])
    return _webp(Image.fromarray(pixels), lossless=side <= _LOSSLESS_UP_TO_PX, quality=90)


def thumbnail_uri(pixels: Pixels, side_px: int = 96) -> str:
    """A small copy as a WebP data URI of 1 to 4 kB."""
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return _webp(image, lossless=False, quality=78)


def cell_colours(pixels: Pixels, grid: tuple[int, int]) -> list[str]:
    """Mean colour of each cell of a grid (h, w), as `#rrggbb` in raster order."""
    height, width = grid
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in np.asarray(small).reshape(-1, 3).tolist()]


def _webp(image: Image.Image, *, lossless: bool, quality: int) -> str:
    encoded = BytesIO()
    image.save(encoded, "WEBP", lossless=lossless, quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"

"""Cuts square crops from one picture: a pure function of its bytes, its name and the settings.

Letters: S side of a crop in pixels, n crops of the picture.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipelines.errors import UsageError


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
        webp_quality: Of the stored crops, 1 to 100. At 85 a crop of 128×128 takes about 2.5 kB and differs from
            its pixels by about 40 dB, far less than a model misses.
        min_webp_bytes: Crops that take fewer are left out: what compresses well has little detail, so a model learns
            little from it. Photographs of 128×128 take about 5 kB at quality 85, flat ground a few hundred bytes.
        seed: Of the crops; each picture's own draw also depends on its file name.
    """

    image_size_px: int = 128
    min_crops: int = 4
    max_crops: int = 120
    crops_per_megapixel: float = 24.0
    min_scale: float = 0.12
    frame_step: int = 8
    webp_quality: int = 85
    min_webp_bytes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cut nothing."""
        if self.image_size_px < 1 or self.frame_step < 1 or not 1 <= self.min_crops <= self.max_crops:
            raise UsageError(
                f"crops: expected image_size_px and frame_step of at least 1 and 1 ≤ min_crops ≤ max_crops, got "
                f"{self.image_size_px}, {self.frame_step}, {self.min_crops} and {self.max_crops}. Change them."
            )
        if not 0 < self.min_scale <= 1 or not 1 <= self.webp_quality <= 100:
            raise UsageError(
                f"crops: expected min_scale in (0, 1] and webp_quality in 1 to 100, got {self.min_scale} and "
                f"{self.webp_quality}. Change them."
            )


def cut_picture(name: str, content: bytes, config: CropConfig) -> tuple[NDArray[np.uint8], str | None]:
    """Cut one picture's crops, and say why there are none if it cannot be decoded.

    Args:
        name: The picture's own, wherever it lies.
        content: The encoded picture, still or animated.
        config: How to cut.

    Returns:
        uint8 (n, S, S, 3), RGB on white; and None, or the reason why n is 0.
    """
    random = np.random.default_rng([config.seed, int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)])
    side = config.image_size_px
    crops: list[NDArray[np.uint8]] = []
    try:
        image = Image.open(io.BytesIO(content))
        for frame in range(0, getattr(image, "n_frames", 1), config.frame_step):
            image.seek(frame)
            crops.extend(_crops_of(_opaque_rgb(ImageOps.exif_transpose(image)), config, random))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        return np.zeros((0, side, side, 3), np.uint8), f"{type(error).__name__}: {error}"
    return np.stack(crops), None


def to_webp(crop: NDArray[np.uint8], quality: int) -> bytes:
    """Encode one crop, uint8 (S, S, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def from_webp(encoded: bytes) -> NDArray[np.uint8]:
    """Pixels of one stored crop, uint8 (S, S, 3)."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


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

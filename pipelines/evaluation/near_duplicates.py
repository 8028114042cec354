"""Finds pictures that are copies of others: rescaled, recompressed, lightly changed, mirrored.

Two steps. A perceptual hash (64 signs of the coarse cosine waves of the grey picture) finds candidates fast; then
the two pictures themselves are compared, since smooth skies and blank walls share hashes without being copies. A crop
is found where a crop with nearly the same borders is among the references, so give those crops too.

Source: the "pHash" of Zauner 2010, on a discrete cosine transform.

Letters: N pictures, M references, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_THUMBNAIL_PX = 32
_WAVES = 8
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A pair that looks like one picture.

    Attributes:
        picture: Row among the pictures.
        reference: Row among the references.
        mirrored: Whether the reference had to be mirrored.
        distance: Hash bits that differ, 0 to 64.
        correlation: Of the two thumbnails' detail, −1 to 1.
    """

    picture: int
    reference: int
    mirrored: bool
    distance: int
    correlation: float


def perceptual_hash(thumbnails: NDArray[np.floating]) -> NDArray[np.bool_]:
    """64 bits a picture.

    Args:
        thumbnails: (N, 32, 32), grey.

    Returns:
        bool (N, 64): which of the 8×8 coarsest cosine coefficients exceed their median.
    """
    waves = _cosine_waves(_THUMBNAIL_PX)[:_WAVES]
    coefficients = (waves @ thumbnails @ waves.T).reshape(len(thumbnails), -1)
    # The first is the mean grey, which outweighs the others; it is compared but does not shift the median.
    return coefficients > np.median(coefficients[:, 1:], axis=1, keepdims=True)


def thumbnails_of(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Grey (N, 32, 32) of RGB pictures (N, S, S, 3), by area."""
    small = [
        Image.fromarray(picture).resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX) for picture in pictures
    ]
    grey: NDArray[np.float64] = np.stack([np.asarray(picture, np.float64) for picture in small]) @ _LUMA
    return grey


def find_near_duplicates(
    pictures: NDArray[np.uint8],
    references: NDArray[np.uint8],
    *,
    max_distance: int = 12,
    min_correlation: float = 0.8,
) -> Iterator[NearDuplicate]:
    """Pairs of a picture and a reference that are the same picture.

    Args:
        pictures: uint8 (N, S, S, 3).
        references: uint8 (M, S', S', 3).
        max_distance: Hash bits that may differ in a candidate.
        min_correlation: Least correlation of the two thumbnails' detail: what is left when their four coarsest waves
            on each axis are taken out, so that two gradients are not a pair.
    """
    seen, known = thumbnails_of(pictures), thumbnails_of(references)
    signs, details = _signs(seen), _details(seen)
    for mirrored in (False, True):
        reference = known[:, :, ::-1] if mirrored else known
        distances = (signs.shape[1] - signs @ _signs(reference).T) / 2
        reference_details = _details(reference)
        for row, column in np.argwhere(distances <= max_distance).tolist():
            correlation = float(details[row] @ reference_details[column])
            if correlation >= min_correlation:
                yield NearDuplicate(row, column, mirrored, round(distances[row, column]), correlation)


def _signs(thumbnails: NDArray[np.float64]) -> NDArray[np.float32]:
    return perceptual_hash(thumbnails).astype(np.float32) * 2 - 1


def _details(thumbnails: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (N, 1024) of thumbnails without their coarsest waves; 0 where nothing to speak of is left."""
    waves = _cosine_waves(_THUMBNAIL_PX)
    coefficients = waves @ thumbnails @ waves.T
    coefficients[:, 0, 0] = 0
    contrasts = np.linalg.norm(coefficients, axis=(1, 2))[:, None]
    coefficients[:, : _WAVES // 2, : _WAVES // 2] = 0
    flat = coefficients.reshape(len(thumbnails), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    # Less than a grey level a pixel is compression noise; a twentieth of the contrast is what a mere gradient has.
    is_detail = (norms > _THUMBNAIL_PX) & (norms > 0.1 * contrasts)
    return np.where(is_detail, flat / np.maximum(norms, 1e-9), 0.0)


def _cosine_waves(size: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II matrix, coarsest wave first."""
    positions, frequencies = np.arange(size) + 0.5, np.arange(size)[:, None]
    waves = np.cos(np.pi * frequencies * positions / size) * np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    return np.asarray(waves, np.float64)

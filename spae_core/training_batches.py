"""What a training step sees: crops, flipped at random and cut to windows of the latent grid, and how many layers.

Everything is drawn from (seed, step) alone, so a resumed run needs no random state to go on as if unbroken.

Letters: N crops, B batch, S image side in pixels, D number of layers, H×W latent grid, s pixels a cell, V codebook
size, T text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spae_core.configs import PyramidConfig
from spae_core.pyramid import DilationSubsampler


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """What is trained on.

    Attributes:
        crops: uint8 (N, S, S, 3).
        crops_sha256: Identity of the crops, which a checkpoint keeps; None if nobody can say.
        given: int64 (N, D, H, W), entries a semantic head fixes, −1 elsewhere; None without one.
        image_features: (N, T) of unit norm, for the semantic guidance loss; None without it.
        word_features: (V, T) of unit norm, by the same encoder.
    """

    crops: NDArray[np.uint8]
    crops_sha256: str | None = None
    given: Tensor | None = None
    image_features: Tensor | None = None
    word_features: Tensor | None = None


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """One step's input.

    Attributes:
        indices: Rows of the crop array, int64 (B,).
        images: float32 (B, 3, s·h, s·w) in [0, 1], where h×w is the window.
        masks: bool (B, D, h, w), which layers own the window's cells.
        first_owner: int64 (B, h, w).
        given: int64 (B, D, h, w), entries fixed by the semantic head, −1 elsewhere; None without one.
    """

    indices: Tensor
    images: Tensor
    masks: Tensor
    first_owner: Tensor
    given: Tensor | None


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step."""
    mixed = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 32 | int(mixed[1]))


def draw_batch(
    crops: NDArray[np.uint8],
    given: Tensor | None,
    subsampler: DilationSubsampler,
    *,
    seed: int,
    step: int,
    batch_size: int,
    window_cells: int,
    positions: range | None = None,
) -> TrainingBatch:
    """Draw the batch of one step.

    Every crop is seen once before any is seen again: an epoch is a permutation drawn from (seed, epoch).

    Args:
        crops: uint8 (N, S, S, 3).
        given: int64 (N, D, H, W) entries fixed from outside, or None.
        subsampler: The pyramid's geometry.
        seed: Of the run.
        step: From 0.
        batch_size: B.
        window_cells: Side of the window in cells; 0 for the whole picture.
        positions: Which of the B to return; all draws are as for the whole batch. Default: all.
    """
    generator = step_generator(seed, step)
    indices = _epoch_rows(len(crops), seed, step * batch_size, batch_size)
    height, width = subsampler.config.grid
    rows, columns = (window_cells, window_cells) if window_cells else (height, width)
    scale = crops.shape[1] // height
    flips = torch.rand(batch_size, generator=generator) < 0.5
    tops = torch.randint(height - rows + 1, (batch_size,), generator=generator).tolist()
    lefts = torch.randint(width - columns + 1, (batch_size,), generator=generator).tolist()
    images, masks, owners, fixed = [], [], [], []
    positions = range(batch_size) if positions is None else positions
    indices = indices[positions.start : positions.stop]
    for position, row in zip(positions, indices.tolist(), strict=True):
        top, left = tops[position], lefts[position]
        picture = torch.from_numpy(np.array(crops[row]))
        if flips[position]:
            picture = picture.flip(1)
        images.append(picture[top * scale : (top + rows) * scale, left * scale : (left + columns) * scale])
        window = (slice(top, top + rows), slice(left, left + columns))
        masks.append(subsampler.masks[:, *window])
        owners.append(subsampler.first_owner[window])
        if given is not None:
            fixed.append(given[row][:, *window])
    return TrainingBatch(
        indices=indices,
        images=torch.stack(images).permute(0, 3, 1, 2).float().div_(255),
        masks=torch.stack(masks),
        first_owner=torch.stack(owners),
        given=torch.stack(fixed) if fixed else None,
    )


def draw_depth(pyramid: PyramidConfig, generator: torch.Generator, *, chance: float, windowed: bool) -> int:
    """How many layers a step decodes from.

    Args:
        pyramid: Whose layers.
        generator: Draws.
        chance: Of a shorter prefix, in [0, 1].
        windowed: Whether the step sees windows; then every cell must own a token, as none can be filled from outside.

    Returns:
        D, or with that chance any number below it that decodes.
    """
    first = pyramid.first_decodable_layer if windowed else 1
    dropped = torch.rand((), generator=generator).item() < chance
    if not dropped or first >= pyramid.num_layers:
        return pyramid.num_layers
    return int(torch.randint(first, pyramid.num_layers, (), generator=generator))


def _epoch_rows(num_rows: int, seed: int, start: int, count: int) -> Tensor:
    """Rows `start` to `start + count` of the endless sequence of epochs."""
    rows = []
    for epoch in range(start // num_rows, (start + count - 1) // num_rows + 1):
        order = np.random.default_rng([seed, 1, epoch]).permutation(num_rows)
        first = max(start - epoch * num_rows, 0)
        last = min(start + count - epoch * num_rows, num_rows)
        rows.append(torch.from_numpy(order[first:last]))
    return torch.cat(rows)

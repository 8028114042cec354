"""A quantizer in a triple loop over images, cells and layers, written from the paper; small ones to compare with it.

Latents and entries lie on a lattice of quarters, so that every sum and distance is exact in float32: the loops and
the quantizer must agree on every index, ties included, and on every quantized number.

Letters: B batch, C embedding_dim, H×W latent grid, D number of layers, V codebook size.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spae_core.configs import PyramidConfig, QuantizerConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import PRESETS, preset
from spae_core.quantizer import StreamingAverageQuantizer

GRIDS = {
    **{name: preset(name).pyramid.layer_grids for name in PRESETS},
    "wide": ((1, 2), (2, 2), (2, 8), (4, 8), (4, 8)),
    "by three": ((1, 1), (3, 3), (3, 9), (9, 9)),
    "tall and late": ((2, 1), (2, 3), (6, 3)),
}
KINDS = ("saq", "residual")


def codebook_of(embeddings: Tensor) -> LexicalCodebook:
    size = len(embeddings)
    return LexicalCodebook(
        embeddings=embeddings,
        token_ids=tuple(range(size)),
        words=tuple(f"word{index}" for index in range(size)),
        source="made up",
    )


def quantizer_of(
    grids: tuple[tuple[int, int], ...], embeddings: Tensor, **options: object
) -> StreamingAverageQuantizer:
    config, pyramid = QuantizerConfig(**options), PyramidConfig(layer_grids=grids)
    return StreamingAverageQuantizer(config, pyramid, codebook_of(embeddings), embeddings.shape[1])


def on_the_lattice(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(-12, 13, shape, generator=torch.Generator().manual_seed(seed)) / 4


@dataclass
class Reference:
    """What the loops give; −1 and NaN where a layer or a prefix owns nothing."""

    indices: NDArray[np.int64]  # (B, D, H, W)
    prefixes: NDArray[np.float32]  # (B, D, C, H, W), zq_{≤l}
    targets: list[list[NDArray[np.float64]]]  # of each layer, its z_l in (B, H, W) order


def owns(grids: tuple[tuple[int, int], ...], layer: int, row: int, column: int) -> bool:
    """Whether layer (from 0) owns the cell (from 1): h'·i − ceil(h'/2) + 1 for some i, and the same for columns."""
    h, w = grids[-1][0] // grids[layer][0], grids[-1][1] // grids[layer][1]
    rows = {h * i - ceil(h / 2) + 1 for i in range(1, grids[layer][0] + 1)}
    columns = {w * j - ceil(w / 2) + 1 for j in range(1, grids[layer][1] + 1)}
    return row in rows and column in columns


def triple_loop(
    latents: Tensor,
    embeddings: Tensor,
    grids: tuple[tuple[int, int], ...],
    kind: str,
    fixed: Tensor | None = None,
) -> Reference:
    """z_l = z + Σ_{i<l} m_i (z − e(k_i)), k_l = argmin ‖z_l − e(k)‖², zq_{≤l} = Σ m_i e(k_i) / Σ m_i.

    Residual: r_l = z − Σ_{i<l} m_i e(k_i), zq_{≤l} = Σ m_i e(k_i). `fixed` entries of 0 or more are taken as given.
    """
    batch, channels, height, width = latents.shape
    depth = len(grids)
    entries = embeddings.double().numpy()
    indices = np.full((batch, depth, height, width), -1)
    prefixes = np.full((batch, depth, channels, height, width), np.nan, np.float32)
    targets: list[list[NDArray[np.float64]]] = [[] for _ in range(depth)]
    for image in range(batch):
        for row in range(height):
            for column in range(width):
                z = latents[image, :, row, column].double().numpy()
                chosen: list[NDArray[np.float64]] = []
                for layer in range(depth):
                    if owns(grids, layer, row + 1, column + 1):
                        missed = sum((z - entry for entry in chosen), np.zeros(channels))
                        target = z + missed if kind == "saq" else z - sum(chosen)
                        index = int(((target - entries) ** 2).sum(axis=1).argmin())
                        if fixed is not None and fixed[image, layer, row, column] >= 0:
                            index = int(fixed[image, layer, row, column])
                        indices[image, layer, row, column] = index
                        chosen.append(entries[index])
                        targets[layer].append(target)
                    if chosen:
                        total = np.sum(chosen, axis=0).astype(np.float32)
                        combined = total / np.float32(len(chosen)) if kind == "saq" else total
                        prefixes[image, layer, :, row, column] = combined
    return Reference(indices, prefixes, targets)

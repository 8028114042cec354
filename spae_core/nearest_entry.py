"""Exact nearest codebook entry by squared L2, in bounded memory.

A matrix product finds the nearest entry fast but rounds; where the two best scores are closer than the rounding can
be, the row is searched again by plain differences in float64. The answer is therefore that of exact arithmetic on
the float32 inputs whatever the batch, thread count or device, ties to the lowest index.

Letters: N vectors, V codebook size, C embedding_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORES_PER_CHUNK = 1 << 22
"""Upper bound on the scores held at once: 16 MiB of float32, about the cache of one core."""


@torch.no_grad()
def nearest_entry(vectors: Tensor, entries: Tensor, *, exact: bool = True) -> Tensor:
    """Find the nearest entry of each vector.

    Args:
        vectors: (N, C), any float type; computed in float32.
        entries: (V, C) codebook rows.
        exact: Search near ties again in float64. Training may leave it off: it is up to twice as fast, and a near
            tie costs nothing there.

    Returns:
        int64 (N,), in [0, V).

    Raises:
        ValueError: If the widths differ; the message has both.
    """
    if vectors.ndim != 2 or entries.ndim != 2 or vectors.shape[1] != entries.shape[1]:
        raise ValueError(
            f"nearest_entry: expected vectors (N, C) and entries (V, C) of one width, "
            f"got {tuple(vectors.shape)} and {tuple(entries.shape)}. Check the codebook's embedding_dim."
        )
    with torch.autocast(vectors.device.type, enabled=False):
        entries = entries.float()
        squared_norms = entries.square().sum(dim=1)
        transposed = entries.t().contiguous()
        rows = max(1, SCORES_PER_CHUNK // len(entries))
        found = [
            _nearest_in_chunk(chunk.float(), entries, transposed, squared_norms, exact) for chunk in vectors.split(rows)
        ]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=vectors.device)


def _nearest_in_chunk(
    vectors: Tensor, entries: Tensor, transposed: Tensor, squared_norms: Tensor, exact: bool
) -> Tensor:
    scores = torch.addmm(squared_norms, vectors, transposed, alpha=-2)
    best, index = scores.min(dim=1)
    if not exact or len(entries) == 1:
        return index
    runner_up = scores.scatter_(1, index[:, None], torch.inf).amin(dim=1)
    # A float32 sum of C products is off by at most (C + 3) half-ulps of the sum of magnitudes; both scores may be.
    unit_roundoff = torch.finfo(torch.float32).eps / 2
    magnitude = squared_norms.max() + 2 * vectors.norm(dim=1) * squared_norms.max().sqrt()
    tolerance = 2 * (vectors.shape[1] + 4) * unit_roundoff * magnitude
    # Written so that NaN counts as doubtful.
    doubtful = torch.nonzero(~(runner_up - best > tolerance)).flatten()
    wide_entries = entries.double() if len(doubtful) else entries
    for row in doubtful.tolist():
        index[row] = (wide_entries - vectors[row].double()).square().sum(dim=1).argmin()
    return index

"""Starts an encoder with latents that already look like the codebook, so that training does not begin in a collapse.

Not in the paper. The last 1×1 convolution maps the principal axes of the features onto those of the codebook, so
that the first latents have the codebook's mean and covariance.

Letters: M feature channels, C embedding_dim, V codebook size, N cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spae_core.errors import ModelError
from spae_core.tokenizer import SpaeTokenizer


@torch.no_grad()
def match_latents_to_codebook(model: SpaeTokenizer, images: Tensor, first_owner: Tensor | None = None) -> None:
    """Set the encoder's last convolution from one batch.

    Args:
        model: Changed in place.
        images: (B, 3, S, S) in [0, 1]; together at least as many cells as the codebook has dimensions.
        first_owner: int64 (B, H, W) for the ownership embedding.

    Raises:
        ModelError: If there are fewer cells than dimensions.
    """
    device = model.device
    features = model.encoder.features(images.to(device), None if first_owner is None else first_owner.to(device))
    cells = features.float().movedim(1, -1).flatten(0, 2).double()
    table = model.quantizer.table().double()
    if len(cells) < table.shape[1]:
        raise ModelError(
            f"matched_start: expected at least {table.shape[1]} cells in a batch, as many as embedding_dim, "
            f"got {len(cells)}. Raise batch_size or window_cells, or set matched_start to false."
        )
    cell_mean, table_mean = cells.mean(dim=0), table.mean(dim=0)
    cell_values, cell_axes = _principal_axes(cells - cell_mean)
    table_values, table_axes = _principal_axes(table - table_mean)
    count = min(len(cell_values), len(table_values))
    # Features of little variance would be blown up; they get the scale of a thousandth of the largest.
    floor = cell_values[0] * 1e-3
    scale = (table_values[:count] / cell_values[:count].clamp_min(floor)).sqrt()
    weight = table_axes[:, :count] @ (scale[:, None] * cell_axes[:, :count].t())
    convolution = model.encoder.to_latents
    convolution.weight.copy_(weight.to(convolution.weight.dtype)[:, :, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(table_mean - weight @ cell_mean)


def _principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, largest first, and the axes as columns."""
    values, axes = torch.linalg.eigh(centred.t() @ centred / len(centred))
    return values.flip(0), axes.flip(1)

"""Starts an encoder with latents that already look like the codebook, so that training does not begin in a collapse.

Not in the paper. A linear map takes the principal axes of the features onto those of the codebook, so that the first
latents have the codebook's mean and covariance. The features are what the encoder's last 1×1 convolution reads or,
where encoder and decoder have a linear path, the pixels of a cell: the autoencoder then begins as a codec of principal
components, and the networks at zero.

Letters: M feature channels, C embedding_dim, V codebook size, N cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spae_core.errors import ModelError
from spae_core.tokenizer import SpaeTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class _AxesMatch:
    """The linear map from features to latents, latent = forward·(feature − feature_mean) + latent_mean, and back."""

    feature_mean: Tensor
    latent_mean: Tensor
    forward: Tensor
    backward: Tensor


@torch.no_grad()
def match_latents_to_codebook(model: SpaeTokenizer, images: Tensor, first_owner: Tensor | None = None) -> None:
    """Set the encoder's last convolution, or the linear paths of both halves, from one batch.

    Args:
        model: Changed in place.
        images: (B, 3, S, S) in [0, 1]; together at least as many cells as the codebook has dimensions.
        first_owner: int64 (B, H, W) for the ownership embedding.

    Raises:
        ModelError: If there are fewer cells than dimensions.
    """
    images = images.to(model.device)
    table = model.quantizer.table().double()
    if model.encoder.linear_path is None:
        owner = None if first_owner is None else first_owner.to(model.device)
        match = _match_axes(_rows(model.encoder.features(images, owner)), table)
        _set(model.encoder.to_latents, match.forward, match.latent_mean - match.forward @ match.feature_mean)
        return
    cell_px = model.config.encoder.downsampling
    match = _match_axes(_rows(nn.functional.pixel_unshuffle(images, cell_px)), table)
    _set(model.encoder.linear_path, match.forward, match.latent_mean - match.forward @ match.feature_mean)
    _set_zero(model.encoder.to_latents)
    if model.decoder.linear_path is not None:
        offset = (match.feature_mean - match.backward @ match.latent_mean).view(3, -1)
        # A transposed convolution has one bias a colour, not one a pixel; the mean picture of a cell is almost flat.
        _set(model.decoder.linear_path, match.backward.t(), offset.mean(dim=1))
        _set_zero(model.decoder.to_pixels)


def _rows(features: Tensor) -> Tensor:
    """(B, M, H, W) to float64 (N, M)."""
    return features.float().movedim(1, -1).flatten(0, 2).double()


def _set(layer: nn.Conv2d | nn.ConvTranspose2d, weight: Tensor, bias: Tensor) -> None:
    assert layer.bias is not None
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    layer.bias.copy_(bias)


def _set_zero(layer: nn.Conv2d) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _match_axes(cells: Tensor, table: Tensor) -> _AxesMatch:
    """Match the principal axes of features (N, M) with those of the codebook (V, C)."""
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
    forward = table_axes[:, :count] @ (scale[:, None] * cell_axes[:, :count].t())
    inverse_scale = torch.where(scale > 0, 1 / scale, 0)
    backward = (cell_axes[:, :count] * inverse_scale) @ table_axes[:, :count].t()
    return _AxesMatch(feature_mean=cell_mean, latent_mean=table_mean, forward=forward, backward=backward)


def _principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, largest first, and the axes as columns."""
    values, axes = torch.linalg.eigh(centred.t() @ centred / len(centred))
    return values.flip(0), axes.flip(1)

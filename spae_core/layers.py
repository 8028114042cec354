"""Building blocks of the image autoencoder.

Source: arXiv 2306.17842, appendix on implementation (networks inherited from MAGVIT, arXiv 2212.05199).

Letters: B batch, C_in/C_out channels, H×W size, D number of layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

GROUP_NORM_EPS = 1e-6


class ResidualBlock(nn.Module):
    """GroupNorm, swish, 3×3 convolution, twice, added to the input; a 1×1 shortcut when the width changes.

    Attributes:
        recomputes: Keep the input alone for the backward pass, and compute what is inside again there.
    """

    recomputes = False

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups, in_channels, eps=GROUP_NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(norm_groups, out_channels, eps=GROUP_NORM_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        if self.recomputes and torch.is_grad_enabled():
            kept: Tensor = checkpoint(self._add_residual, inputs, use_reentrant=False)
            return kept
        return self._add_residual(inputs)

    def _add_residual(self, inputs: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(inputs)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        out: Tensor = self.shortcut(inputs) + hidden
        return out


class Upsample(nn.Module):
    """Nearest-neighbour ×2, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(inputs, scale_factor=2.0, mode="nearest"))
        return out


class OwnershipEmbedding(nn.Module):
    """Adds a learned vector to each cell, by the first layer that owns it.

    A convolution sees neither where it is nor which layers own the cell, yet a cell with three tokens needs another
    latent than one with two. Not in the paper.
    """

    def __init__(self, num_layers: int, channels: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(num_layers, channels)
        nn.init.zeros_(self.vectors.weight)

    def forward(self, features: Tensor, first_owner: Tensor) -> Tensor:
        """Add to (B, C, H, W) the vectors picked by `first_owner`, int64 (H, W) or (B, H, W), 0-indexed layers."""
        vectors: Tensor = self.vectors(first_owner)
        return features + vectors.movedim(-1, -3)

"""The image encoder: pixels to one latent vector a cell.

Source: arXiv 2306.17842, appendix on implementation: 23.7M parameters at F = 128, C = 1536.

Letters: B batch, C embedding_dim, F base_channels, H×W latent grid, s pixels a cell.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from spae_core.configs import NetworkConfig
from spae_core.layers import GROUP_NORM_EPS, OwnershipEmbedding, ResidualBlock


class Encoder(nn.Module):
    """Stem, scales of residual blocks with 2×2 average pooling between them, middle blocks, 1×1 convolution to C."""

    def __init__(self, config: NetworkConfig, embedding_dim: int, ownership_layers: int = 0) -> None:
        """Build the encoder.

        Args:
            config: Widths and depths.
            embedding_dim: C, channels of the latents.
            ownership_layers: Layers an ownership embedding distinguishes; 0 for none, as in the paper.
        """
        super().__init__()
        groups = config.norm_groups
        widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
        patch = config.patch_size_px
        self.stem = (
            nn.Conv2d(3, widths[0], 3, padding=1)
            if patch == 1
            else nn.Conv2d(3, widths[0], kernel_size=patch, stride=patch)
        )
        self.scales = nn.ModuleList()
        for in_channels, out_channels in pairwise([widths[0], *widths]):
            blocks = [
                ResidualBlock(in_channels if index == 0 else out_channels, out_channels, groups)
                for index in range(config.num_residual_blocks)
            ]
            self.scales.append(nn.Sequential(*blocks))
        self.middle = nn.Sequential(
            *[ResidualBlock(widths[-1], widths[-1], groups) for _ in range(config.num_middle_blocks)]
        )
        self.norm = nn.GroupNorm(groups, widths[-1], eps=GROUP_NORM_EPS)
        self.ownership = OwnershipEmbedding(ownership_layers, widths[-1]) if ownership_layers else None
        self.to_latents = nn.Conv2d(widths[-1], embedding_dim, 1)
        cell_px = config.downsampling
        self.linear_path = nn.Conv2d(3, embedding_dim, cell_px, stride=cell_px) if config.linear_path else None

    def features(self, images: Tensor, first_owner: Tensor | None = None) -> Tensor:
        """Map images (B, 3, s·H, s·W) in [0, 1] to what the last convolution reads, (B, m·F, H, W)."""
        hidden = self.stem(images)
        for index, scale in enumerate(self.scales):
            if index:
                hidden = F.avg_pool2d(hidden, 2)
            hidden = scale(hidden)
        hidden = self.middle(hidden)
        if self.ownership is not None and first_owner is not None:
            hidden = self.ownership(hidden, first_owner)
        return F.silu(self.norm(hidden))

    def forward(self, images: Tensor, first_owner: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, s·H, s·W) in [0, 1].
            first_owner: int64 (H, W) or (B, H, W) for the ownership embedding; unused without one.

        Returns:
            Latents (B, C, H, W), not normalised.
        """
        latents: Tensor = self.to_latents(self.features(images, first_owner))
        return latents if self.linear_path is None else latents + self.linear_path(images)

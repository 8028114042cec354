"""The image decoder: one vector a cell back to pixels, the encoder mirrored.

Source: arXiv 2306.17842, appendix on implementation: 35.7M parameters at F = 128, C = 1536.

Letters: B batch, C embedding_dim, F base_channels, H×W latent grid, s pixels a cell.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from spae_core.configs import NetworkConfig
from spae_core.layers import GROUP_NORM_EPS, OwnershipEmbedding, ResidualBlock, Upsample


class Decoder(nn.Module):
    """3×3 convolution, middle blocks, scales in reverse with upsampling between them, 3×3 convolution to pixels."""

    def __init__(self, config: NetworkConfig, embedding_dim: int, ownership_layers: int = 0) -> None:
        """Build the decoder; the arguments are the encoder's."""
        super().__init__()
        groups = config.norm_groups
        widths = [config.base_channels * multiplier for multiplier in reversed(config.channel_multipliers)]
        self.from_latents = nn.Conv2d(embedding_dim, widths[0], 3, padding=1)
        self.ownership = OwnershipEmbedding(ownership_layers, widths[0]) if ownership_layers else None
        self.middle = nn.Sequential(
            *[ResidualBlock(widths[0], widths[0], groups) for _ in range(config.num_middle_blocks)]
        )
        self.scales = nn.ModuleList()
        channels = widths[0]
        for index, width in enumerate(widths):
            blocks: list[nn.Module] = [Upsample(channels)] if index else []
            for _ in range(config.num_residual_blocks):
                blocks.append(ResidualBlock(channels, width, groups))
                channels = width
            self.scales.append(nn.Sequential(*blocks))
        self.norm = nn.GroupNorm(groups, channels, eps=GROUP_NORM_EPS)
        self.to_pixels = nn.Conv2d(channels, 3 * config.patch_size_px**2, 3, padding=1)
        self.patch_size_px = config.patch_size_px
        cell_px = config.downsampling
        self.linear_path = nn.ConvTranspose2d(embedding_dim, 3, cell_px, stride=cell_px) if config.linear_path else None

    def forward(self, quantized: Tensor, first_owner: Tensor | None = None) -> Tensor:
        """Decode.

        Args:
            quantized: (B, C, H, W).
            first_owner: int64 (H, W) or (B, H, W) for the ownership embedding; unused without one.

        Returns:
            Images (B, 3, s·H, s·W); in [0, 1] up to the network's error, not clamped.
        """
        hidden = self.from_latents(quantized)
        if self.ownership is not None and first_owner is not None:
            hidden = self.ownership(hidden, first_owner)
        hidden = self.middle(hidden)
        for scale in self.scales:
            hidden = scale(hidden)
        pixels: Tensor = self.to_pixels(F.silu(self.norm(hidden)))
        if self.patch_size_px > 1:
            pixels = F.pixel_shuffle(pixels, self.patch_size_px)
        return pixels if self.linear_path is None else pixels + self.linear_path(quantized)

"""Image discriminator of StyleGAN type, without blur and without minibatch statistics.

Source: arXiv 2306.17842, which inherits it from MAGVIT (arXiv 2212.05199, `stylegan_discriminator_2d`); the
residual block is that of StyleGAN2 (arXiv 1912.04958).

Letters: B batch, H×W size, C channels, F base_channels.
"""

from __future__ import annotations

from math import sqrt

from torch import Tensor, nn
from torch.nn import functional as F

_LEAKY_SLOPE = 0.2


class DiscriminatorBlock(nn.Module):
    """Halve the size and change the width: two 3×3 convolutions beside a 1×1 skip, their sum over sqrt 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H/2, W/2)."""
        hidden = F.leaky_relu(self.conv1(inputs), _LEAKY_SLOPE)
        hidden = F.leaky_relu(self.conv2(F.avg_pool2d(hidden, 2)), _LEAKY_SLOPE)
        skipped: Tensor = self.skip(F.avg_pool2d(inputs, 2))
        return (skipped + hidden) / sqrt(2.0)  # keeps the variance of the sum that of its terms


class Discriminator(nn.Module):
    """Images to one logit each: high for real, low for decoded ones. Images of a batch do not see each other.

    Args:
        image_size_px: Side of the square images; the flattened head fixes it.
        base_channels: F, channels before the first block.
        channel_multipliers: Channels after each block as multiples of F; each block halves the size.
            MAGVIT's, for 128 px, are (2, 4, 4, 4, 4).

    Raises:
        ValueError: If the blocks do not divide the image size.
    """

    def __init__(
        self,
        *,
        image_size_px: int = 128,
        base_channels: int = 128,
        channel_multipliers: tuple[int, ...] = (2, 4, 4, 4, 4),
    ) -> None:
        super().__init__()
        stride = 2 ** len(channel_multipliers)
        if not channel_multipliers or image_size_px % stride:
            raise ValueError(
                f"image_size_px: expected a multiple of {stride} for {len(channel_multipliers)} blocks, got "
                f"{image_size_px}. Change channel_multipliers, one for each halving."
            )
        self.image_size_px = image_size_px
        self.conv_in = nn.Conv2d(3, base_channels, 3, padding=1)
        blocks: list[nn.Module] = []
        channels = base_channels
        for multiplier in channel_multipliers:
            blocks.append(DiscriminatorBlock(channels, base_channels * multiplier))
            channels = base_channels * multiplier
        self.blocks = nn.Sequential(*blocks)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        self.hidden = nn.Linear(channels * (image_size_px // stride) ** 2, channels)
        self.logit = nn.Linear(channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images.

        Args:
            images: (B, 3, H, W) in [0, 1], H = W = image_size_px.

        Returns:
            (B,) logits.

        Raises:
            ValueError: If the images have another shape.
        """
        expected = (3, self.image_size_px, self.image_size_px)
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"discriminator input: expected (B, {', '.join(map(str, expected))}), got "
                f"{tuple(images.shape)}. Resize the images or build the discriminator for their size."
            )
        hidden = F.leaky_relu(self.conv_in(images), _LEAKY_SLOPE)
        hidden = self.blocks(hidden)
        hidden = F.leaky_relu(self.conv_out(hidden), _LEAKY_SLOPE).flatten(start_dim=1)
        hidden = F.leaky_relu(self.hidden(hidden), _LEAKY_SLOPE)
        logits: Tensor = self.logit(hidden)
        return logits.squeeze(1)

"""EfficientNet-Lite0, the small ImageNet classifier behind ConSE, in plain modules.

Written out because importing timm costs seconds at every start of a worker. Parameters have timm's names, and
a test holds it equal to timm's `tf_efficientnet_lite0`.

Source: Tan and Le 2019 (arXiv 1905.11946); the Lite variant of its authors has no squeeze-and-excitation,
ReLU6 for swish, and a fixed stem and head.

Letters: B batch, C channels, H×W size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spae_core.errors import ModelError

INPUT_SIZE_PX = 224

# (kernel, stride, expansion, output channels, repeats) of each group of blocks; the stride is that of its
# first block.
_BLOCK_GROUPS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_BATCH_NORM_EPSILON = 1e-3


def _convolve(convolution: nn.Conv2d, norm: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    """Convolve with TensorFlow's SAME padding and normalise, as one convolution.

    The norm is frozen, so it folds into the kernel: a pass over the weights instead of one over the features,
    which are far larger. Of an odd padding the remainder goes to the right and the bottom.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    kernel = convolution.weight * scale[:, None, None, None]
    bias = norm.bias - mean * scale
    padding: list[int] = []
    for size, width, stride in zip(inputs.shape[:1:-1], kernel.shape[:1:-1], convolution.stride[::-1], strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        padding += [total // 2, total - total // 2]
    even = padding[0::2] == padding[1::2]
    return F.conv2d(
        inputs if even else F.pad(inputs, padding),
        kernel,
        bias,
        convolution.stride,
        padding=(padding[2], padding[0]) if even else 0,
        groups=convolution.groups,
    )


class _DepthwiseBlock(nn.Module):
    """Depthwise then pointwise convolution: the first block, which expands nothing."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, kernel, stride, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels, eps=_BATCH_NORM_EPSILON)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=_BATCH_NORM_EPSILON)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu6(_convolve(self.conv_dw, self.bn1, inputs), inplace=True)
        hidden = _convolve(self.conv_pw, self.bn2, hidden)
        out: Tensor = inputs + hidden if self.adds_input else hidden
        return out


class _InvertedResidualBlock(nn.Module):
    """Pointwise expansion, depthwise convolution, linear projection; added to the input where it fits."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.conv_pw = nn.Conv2d(in_channels, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide, eps=_BATCH_NORM_EPSILON)
        self.conv_dw = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide, eps=_BATCH_NORM_EPSILON)
        self.conv_pwl = nn.Conv2d(wide, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels, eps=_BATCH_NORM_EPSILON)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu6(_convolve(self.conv_pw, self.bn1, inputs), inplace=True)
        hidden = F.relu6(_convolve(self.conv_dw, self.bn2, hidden), inplace=True)
        hidden = _convolve(self.conv_pwl, self.bn3, hidden)
        out: Tensor = inputs + hidden if self.adds_input else hidden
        return out


class EfficientNetLite0(nn.Module):
    """Images to class logits.

    Args:
        num_classes: Width of the last linear layer.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, _STEM_CHANNELS, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS, eps=_BATCH_NORM_EPSILON)
        groups: list[nn.Module] = []
        channels = _STEM_CHANNELS
        for kernel, stride, expansion, out_channels, repeats in _BLOCK_GROUPS:
            blocks: list[nn.Module] = []
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                if expansion == 1:
                    blocks.append(_DepthwiseBlock(channels, out_channels, kernel, step))
                else:
                    blocks.append(_InvertedResidualBlock(channels, out_channels, kernel, step, expansion))
                channels = out_channels
            groups.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*groups)
        self.conv_head = nn.Conv2d(channels, _HEAD_CHANNELS, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(_HEAD_CHANNELS, eps=_BATCH_NORM_EPSILON)
        self.classifier = nn.Linear(_HEAD_CHANNELS, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, 224, 224), pixels (p·255 − 127)/128 of p in [0, 1], to logits (B, num_classes)."""
        logits: Tensor = self.classifier(self.features(pixels).mean(dim=(2, 3)))
        return logits

    def features(self, pixels: Tensor) -> Tensor:
        """Map the same pixels to the last feature map, (B, 1280, 7, 7); the logits are linear in its mean."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        hidden = F.relu6(_convolve(self.conv_stem, self.bn1, pixels), inplace=True)
        hidden = self.blocks(hidden)
        return F.relu6(_convolve(self.conv_head, self.bn2, hidden), inplace=True)


def lite_pytorch_key_map() -> dict[str, str]:
    """Say which tensor of an `efficientnet-lite-pytorch` state dict each of ours is.

    That package numbers the blocks straight through and counts batch norms from 0; a block without expansion
    keeps the numbers of one that has it, so its norms start at 1.

    Returns:
        Our key to the package's key, one entry a tensor of `EfficientNetLite0.state_dict()`.
    """
    inverted = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    depthwise = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    modules = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    number = 0
    for group, (_, _, expansion, _, repeats) in enumerate(_BLOCK_GROUPS):
        for repeat in range(repeats):
            names = depthwise if expansion == 1 else inverted
            for ours, theirs in names.items():
                modules[f"blocks.{group}.{repeat}.{ours}"] = f"_blocks.{number}.{theirs}"
            number += 1
    keys: dict[str, str] = {}
    for ours, theirs in modules.items():
        for tensor in _tensor_names(ours):
            keys[f"{ours}.{tensor}"] = f"{theirs}.{tensor}"
    return keys


def classifier_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an `efficientnet-lite-pytorch` state dict to ours; timm's names pass unchanged.

    Args:
        weights: A state dict of that package or of timm's `tf_efficientnet_lite0`.

    Returns:
        A state dict for `EfficientNetLite0`.

    Raises:
        ModelError: If a tensor is missing or one would be left unused.
    """
    keys = lite_pytorch_key_map()
    if weights.keys() == keys.keys():
        return dict(weights)
    missing = sorted(set(keys.values()) - weights.keys())
    unused = sorted(weights.keys() - set(keys.values()))
    if missing or unused:
        raise ModelError(
            f"EfficientNet-Lite0 weights: expected the {len(keys)} tensors of efficientnet-lite-pytorch, got "
            f"{len(weights)} with {len(missing)} missing {missing[:3]} and {len(unused)} unknown "
            f"{unused[:3]}. Fetch the asset `efficientnet-lite0` again."
        )
    return {ours: weights[theirs] for ours, theirs in keys.items()}


def _tensor_names(module: str) -> tuple[str, ...]:
    name = module.rsplit(".", maxsplit=1)[-1]
    if name.startswith("bn"):
        return ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return ("weight", "bias") if name == "classifier" else ("weight",)

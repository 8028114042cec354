"""LPIPS v0.1, the perceptual distance that trains and measures reconstructions, from a local weights file.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018
(arXiv 1801.03924), the calibrated heads of version 0.1.

Letters: B batch, H×W pixels, C_k channels of tap k (five taps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spae_core.errors import ModelError

LpipsNet = Literal["vgg", "alex"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trunk:
    """Where LPIPS listens to a torchvision `features` stack."""

    constructor: str
    tap_indices: tuple[int, ...]  # the ReLU whose output is a tap
    tap_channels: tuple[int, ...]
    min_size_px: int  # below this a pooling layer has nothing left to pool


_TRUNKS: Mapping[str, _Trunk] = {
    "vgg": _Trunk(
        constructor="vgg16",
        tap_indices=(3, 8, 15, 22, 29),
        tap_channels=(64, 128, 256, 512, 512),
        min_size_px=16,
    ),
    "alex": _Trunk(
        constructor="alexnet",
        tap_indices=(1, 4, 7, 9, 11),
        tap_channels=(64, 192, 384, 256, 256),
        min_size_px=31,
    ),
}

# Added to the squared norm of a feature vector: keeps the gradient finite where every channel is dead.
_NORM_EPSILON = 1e-8


class Lpips(nn.Module):
    """Perceptual distance between images: 0 for equal ones, about 0.7 for unrelated ones.

    Both images go through a frozen classifier; at five depths the channel-normalised features are compared,
    each channel weighted by what people called different, and averaged over space. The module is frozen and
    stays in evaluation mode; gradients flow to the images. The trunk may run under autocast, the comparison
    is float32.

    Args:
        net: `vgg` (VGG16, the training loss) or `alex` (AlexNet, the usual report). Random until weights are
            loaded.

    Raises:
        ValueError: If `net` is neither.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: LpipsNet = "vgg") -> None:
        super().__init__()
        if net not in _TRUNKS:
            raise ValueError(f"LPIPS network: expected one of {sorted(_TRUNKS)}, got {net!r}. Pass one of these.")
        self.net = net
        self._trunk = _TRUNKS[net]
        with torch.device("meta"):  # VGG's unused classifier alone would fill half a gigabyte
            full_stack = getattr(torchvision.models, self._trunk.constructor)(weights=None).features
        # Keep the indices of the full stack as names, so that the weights file needs no mapping.
        self.features = nn.Sequential(*list(full_stack)[: self._trunk.tap_indices[-1] + 1]).to_empty(device="cpu")
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
        for tap, channels in enumerate(self._trunk.tap_channels):
            head = nn.Conv2d(channels, 1, kernel_size=1, bias=False)
            nn.init.constant_(head.weight, 1.0 / channels)  # a distance even before weights are loaded
            self.add_module(f"lin{tap}", head)
        # ImageNet's mean and deviation, moved to pixels in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_file(cls, path: str | Path, net: LpipsNet = "vgg") -> Lpips:
        """Build the module with the weights of a safetensors file.

        Args:
            path: File with `features.<n>.weight`, `features.<n>.bias` and `lin0.weight` to `lin4.weight`,
                each of the last five (1, C_k, 1, 1).
            net: The network that the file holds.

        Returns:
            The frozen module, on the CPU.

        Raises:
            ModelError: If the file is missing, unreadable, or holds another network.
        """
        module = cls(net)
        try:
            module.load_state_dict(load_file(str(path)))
        except FileNotFoundError as error:
            raise ModelError(
                f"LPIPS weights: expected a file at {path}, got none. Fetch the asset `lpips` or pass another path."
            ) from error
        except (SafetensorError, RuntimeError, OSError) as error:
            raise ModelError(
                f"LPIPS weights: expected the {net} trunk and its five heads in {path}, got {error}. "
                "Fetch the asset `lpips` again or name the network that the file holds."
            ) from error
        return module

    def train(self, mode: bool = True) -> Lpips:
        """Stay in evaluation mode whatever the parent does: a distance must not depend on the phase."""
        return super().train(False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Measure the distance of each pair; symmetric in its arguments.

        Args:
            images: (B, 3, H, W) in [0, 1].
            targets: (B, 3, H, W) in [0, 1].

        Returns:
            (B,) float32, at least 0.

        Raises:
            ValueError: If the shapes differ, are not (B, 3, H, W), or the images are too small to pool.
        """
        self._check(images, targets)
        total = torch.zeros(images.shape[0], device=images.device)
        image_taps, target_taps = self._taps(images), self._taps(targets)
        with torch.autocast(images.device.type, enabled=False):
            for tap, (image_tap, target_tap) in enumerate(zip(image_taps, target_taps, strict=True)):
                difference = (_unit_channels(image_tap) - _unit_channels(target_tap)).square()
                head = self.get_submodule(f"lin{tap}")
                total = total + head(difference).mean(dim=(1, 2, 3))
        return total

    def _taps(self, images: Tensor) -> list[Tensor]:
        activations = (2.0 * images - 1.0 - self.shift) / self.scale
        taps: list[Tensor] = []
        for index, layer in enumerate(self.features):
            activations = layer(activations)
            if index in self._trunk.tap_indices:
                taps.append(activations)
        return taps

    def _check(self, images: Tensor, targets: Tensor) -> None:
        if images.shape != targets.shape or images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(
                f"LPIPS inputs: expected two tensors of one shape (B, 3, H, W), got {tuple(images.shape)} "
                f"and {tuple(targets.shape)}. Resize or crop one to the other."
            )
        if min(images.shape[2:]) < self._trunk.min_size_px:
            raise ValueError(
                f"LPIPS input size: expected at least {self._trunk.min_size_px} px a side for {self.net}, "
                f"got {images.shape[2]}×{images.shape[3]}. Use larger images."
            )


def _unit_channels(features: Tensor) -> Tensor:
    features = features.float()
    return features / (features.square().sum(dim=1, keepdim=True) + _NORM_EPSILON).sqrt()

"""How good a reconstruction is, and how much of the vocabulary a tokenizer uses.

Source: PSNR and SSIM (Wang et al. 2004) as usual for pixels in [0, 1]; usage and perplexity as in van den
Oord et al. 2017 (arXiv 1711.00937).

Letters: B batch, H×W pixels, V codebook size, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Equal images would have infinite PSNR, and one of them would spoil a mean: below this error we say 100 dB.
_MIN_SQUARED_ERROR = 1e-10

_SSIM_WINDOW_PX = 11
_SSIM_DEVIATION_PX = 1.5


def psnr_db(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, in decibels.

    Args:
        images: (B, 3, H, W); clamped to [0, 1], as a viewer would see them.
        targets: (B, 3, H, W); clamped as well.

    Returns:
        (B,) float32 in [0, 100]; 100 stands for equal images.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_pair("PSNR", images, targets)
    difference = images.float().clamp(0.0, 1.0) - targets.float().clamp(0.0, 1.0)
    squared_error = difference.square().flatten(start_dim=1).mean(dim=1)
    return -10.0 * squared_error.clamp_min(_MIN_SQUARED_ERROR).log10()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity of each image: luminance, contrast and structure in a sliding Gaussian window.

    Windows lie wholly inside the image, as in the authors' code and in scikit-image; libraries that reflect
    the border differ in the third digit. Channels are compared one by one and averaged.

    Args:
        images: (B, 3, H, W), at least 11 px a side; clamped to [0, 1].
        targets: (B, 3, H, W); clamped as well.

    Returns:
        (B,) float32 in [-1, 1]; 1 for equal images.

    Raises:
        ValueError: If the shapes differ or an image is smaller than the window.

    Source: Wang et al. 2004, equation 13 with K1 = 0.01, K2 = 0.03, window 11 px, deviation 1.5 px.
    """
    _check_pair("SSIM", images, targets)
    if min(images.shape[2:]) < _SSIM_WINDOW_PX:
        raise ValueError(
            f"SSIM input size: expected at least {_SSIM_WINDOW_PX} px a side, got "
            f"{images.shape[2]}×{images.shape[3]}. Use larger images."
        )
    channels = images.shape[1]
    offsets = torch.arange(_SSIM_WINDOW_PX, device=images.device, dtype=torch.float64) - _SSIM_WINDOW_PX // 2
    profile = torch.exp(-offsets.square() / (2.0 * _SSIM_DEVIATION_PX**2))
    profile = (profile / profile.sum()).expand(channels, 1, -1)

    def window_mean(values: Tensor) -> Tensor:
        rows = F.conv2d(values, profile.unsqueeze(2), groups=channels)
        return F.conv2d(rows, profile.unsqueeze(3), groups=channels)

    # float64: the variances are small differences of large means.
    x, y = images.double().clamp(0.0, 1.0), targets.double().clamp(0.0, 1.0)
    mean_x, mean_y = window_mean(x), window_mean(y)
    variance_x, variance_y = window_mean(x * x) - mean_x**2, window_mean(y * y) - mean_y**2
    covariance = window_mean(x * y) - mean_x * mean_y
    luminance = (2.0 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2.0 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return (luminance * structure).mean(dim=(1, 2, 3)).float()


def code_counts(code_indices: Tensor, codebook_size: int) -> Tensor:
    """Count how often each code occurs.

    Args:
        code_indices: Integers in [0, V), any shape.
        codebook_size: V.

    Returns:
        (V,) int64.

    Raises:
        ValueError: If an index is outside [0, V).
    """
    flat = code_indices.reshape(-1)
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= codebook_size):
        raise ValueError(
            f"code_indices: expected values in [0, {codebook_size}), got {int(flat.min())} to "
            f"{int(flat.max())}. Count with the codebook that made them."
        )
    return torch.bincount(flat, minlength=codebook_size)


def codebook_usage(counts: Tensor) -> float:
    """Share of the codebook that occurs at least once.

    Args:
        counts: (V,) histogram of code indices.

    Returns:
        In [0, 1].
    """
    return float((counts > 0).double().mean())


def codebook_perplexity(counts: Tensor) -> float:
    """Effective number of codes in use: exp of the entropy of their histogram.

    Args:
        counts: (V,) histogram of code indices.

    Returns:
        In [1, V]: 1 when a single code occurs, V when all occur equally often.

    Raises:
        ValueError: If nothing was counted.
    """
    total = int(counts.sum())
    if total == 0:
        raise ValueError(
            "codebook perplexity: expected at least one counted code, got none. Update it with a batch first."
        )
    probabilities = counts[counts > 0].double() / total
    return math.exp(float(-(probabilities * probabilities.log()).sum()))


class LayerCodeStatistics:
    """Histogram of code indices a pyramid layer, gathered over a dataset batch by batch.

    Exact whatever the batches are: counts are integers, and the entropy is taken once at the end.

    Args:
        num_layers: L.
        codebook_size: V.

    Attributes:
        counts: (L, V) int64 on the CPU.
    """

    def __init__(self, num_layers: int, codebook_size: int) -> None:
        self.counts = torch.zeros(num_layers, codebook_size, dtype=torch.int64)

    def update(self, code_indices: Sequence[Tensor]) -> None:
        """Count one batch.

        Args:
            code_indices: One tensor of integers in [0, V) a layer, any shapes.

        Raises:
            ValueError: If there are not L tensors, or an index is outside [0, V).
        """
        num_layers, codebook_size = self.counts.shape
        if len(code_indices) != num_layers:
            raise ValueError(
                f"code_indices: expected one tensor for each of {num_layers} layers, got "
                f"{len(code_indices)}. Pass the whole pyramid."
            )
        for layer, layer_indices in enumerate(code_indices):
            self.counts[layer] += code_counts(layer_indices, codebook_size).cpu()

    def perplexity(self) -> tuple[float, ...]:
        """Perplexity of each layer, coarse first, each in [1, V].

        Raises:
            ValueError: If a layer has no counted code yet.
        """
        return tuple(codebook_perplexity(layer_counts) for layer_counts in self.counts)

    def usage(self) -> tuple[float, ...]:
        """Share of the codebook that each layer uses, coarse first, each in [0, 1]."""
        return tuple(codebook_usage(layer_counts) for layer_counts in self.counts)

    def reset(self) -> None:
        """Forget all counts."""
        self.counts.zero_()


def _check_pair(what: str, images: Tensor, targets: Tensor) -> None:
    if images.shape != targets.shape or images.dim() != 4:
        raise ValueError(
            f"{what} inputs: expected two tensors of one shape (B, 3, H, W), got {tuple(images.shape)} and "
            f"{tuple(targets.shape)}. Resize or crop one to the other."
        )

"""Searches for words that decode better than those the encoder finds at once, by descending on the latents.

An encoder guesses each picture's latents in one pass. Here decoder and words stay as they are, and the latents follow
the gradient of what the decoder makes of their words, as in training, but for these pictures alone. What is decoded is
always words. Costs `num_steps` passes of decoder and perceptual network, forwards and backwards.

Not in the paper; after Campos et al. 2019, "Content Adaptive Optimization for Neural Image Compression"
(arXiv 1906.01223).

Letters: B batch, C embedding_dim, H×W latent grid, D number of layers, S image side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spae_core.errors import ModelError
from spae_core.perceptual import Lpips
from spae_core.structs import TokenPyramid
from spae_core.tokenizer import SpaeTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinementConfig:
    """How to search.

    Attributes:
        num_steps: Descents on the latents, at least 1.
        learning_rate: Adam's, in units of the lookup space.
        perceptual_weight: Of LPIPS beside the mean squared error over pixels.
        commitment_weight: Of the mean squared distance between latents and what their words stand for.
    """

    num_steps: int = 10
    learning_rate: float = 0.02
    perceptual_weight: float = 0.25
    commitment_weight: float = 0.05

    def __post_init__(self) -> None:
        """Refuse searches that do not search."""
        if self.num_steps < 1 or self.learning_rate <= 0:
            raise ModelError(
                f"refinement: expected num_steps of at least 1 and a learning_rate over 0, "
                f"got {self.num_steps} and {self.learning_rate}. Raise them."
            )


def refine(
    model: SpaeTokenizer, images: Tensor, lpips: Lpips, config: RefinementConfig | None = None
) -> tuple[TokenPyramid, Tensor]:
    """Tokenize pictures, and search on for words that decode closer to them.

    The words of a semantic head stay. Each picture is searched for by itself, and the best words seen are kept, so
    none decodes worse, by this measure, than what `tokenize` gives; prefixes of fewer than D layers may.

    Args:
        model: Left as it is.
        images: float32 (B, 3, S, S) in [0, 1].
        lpips: The perceptual distance, on the model's device.
        config: How to search. Default: the defaults.

    Returns:
        All D layers; and the measure of the words kept, float32 (B,): mean squared error + weight · LPIPS.

    Raises:
        ModelError: If the pictures are of another size or type.
    """
    config = config or RefinementConfig()
    images = images.to(model.device)
    with torch.no_grad():
        latents = model.encode(images)
        given = model.given_words(images)
    latents.requires_grad_(True)
    optimizer = torch.optim.Adam([latents], lr=config.learning_rate)
    best = torch.full((len(images),), torch.inf, device=model.device)
    indices: Tensor | None = None
    for step in range(config.num_steps + 1):
        is_last = step == config.num_steps
        with torch.set_grad_enabled(not is_last):
            assignment = model.quantizer.assign(latents, given=given)
            straight_through = latents + (assignment.quantized - latents).detach()
            decoded = model.decode(straight_through)
            error = (decoded - images).square().mean(dim=(1, 2, 3))
            measure = error + config.perceptual_weight * lpips(decoded, images)
        better = measure.detach() < best
        best = torch.where(better, measure.detach(), best)
        found = assignment.indices
        indices = found if indices is None else torch.where(better[:, None, None, None], found, indices)
        if is_last:
            break
        distance = (latents - assignment.quantized.detach()).square().mean(dim=(1, 2, 3))
        (latents.grad,) = torch.autograd.grad((measure + config.commitment_weight * distance).sum(), latents)
        optimizer.step()
    assert indices is not None
    pyramid = TokenPyramid(code_indices=model.quantizer.to_layers(indices), codebook=model.codebook)
    return pyramid, best

"""What the model's parts hand to each other.

Letters: B batch, C embedding_dim, H×W latent grid, D number of layers, h_l×w_l grid of layer l, V codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spae_core.lexical_codebook import LexicalCodebook


@dataclass(frozen=True, slots=True)
class TokenPyramid:
    """The words of B images, coarse layer first.

    Attributes:
        code_indices: One int64 tensor (B, h_l, w_l) a layer, values in [0, V).
        codebook: The codebook the values point into.
    """

    code_indices: tuple[Tensor, ...]
    codebook: LexicalCodebook

    @property
    def num_layers(self) -> int:
        """Layers present."""
        return len(self.code_indices)

    def words(self, layer: int) -> list[list[str]]:
        """The words of one layer in raster order, a list an image.

        Args:
            layer: 1 (coarsest) to D.

        Raises:
            IndexError: If there is no such layer.
        """
        if not 1 <= layer <= self.num_layers:
            raise IndexError(f"layer: expected 1 to {self.num_layers}, got {layer}. Layers count from 1, coarsest.")
        words = self.codebook.words
        return [[words[index] for index in row] for row in self.code_indices[layer - 1].flatten(1).tolist()]

    def flatten(self) -> Tensor:
        """All tokens as int64 (B, tokens): layer by layer, raster inside a layer, the order for a language model."""
        return torch.cat([indices.flatten(1) for indices in self.code_indices], dim=1)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the quantizer chose, cell by cell.

    Attributes:
        indices: int64 (B, D, H, W); −1 where the layer does not own the cell.
        quantized: (B, C, H, W), the entries combined over the layers used; no gradient to the latents.
        commitment_loss: Scalar, β Σ_l mean over owned cells ‖z − sg(zq_{≤l})‖².
        codebook_loss: Scalar, the same with the gradient on the entries instead; 0 unless they are trained.
        layer_targets: z_l of each layer, (N_l, C) for its N_l owned cells in (B, H, W) order, with gradient.
        layer_cells: int64 (N_l, 3), the (image, row, column) of each target.
    """

    indices: Tensor
    quantized: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor
    layer_targets: tuple[Tensor, ...]
    layer_cells: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class QuantizerOutput:
    """Result of `StreamingAverageQuantizer.quantize`.

    Attributes:
        quantized: (B, C, H, W), straight-through.
        code_indices: One int64 (B, h_l, w_l) a layer, in [0, V).
        commitment_loss: Scalar.
    """

    quantized: Tensor
    code_indices: tuple[Tensor, ...]
    commitment_loss: Tensor

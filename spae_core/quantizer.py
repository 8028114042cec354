"""Latents to words: streaming average quantization (SAQ), and residual quantization as its baseline.

Source: arXiv 2306.17842, section on streaming average quantization.

Letters: B batch, C embedding_dim, H×W latent grid, D number of layers, h_l×w_l grid of layer l, V codebook size,
z latent, e(k) entry k, m_l ownership mask of layer l, zq_{≤l} what the first l layers stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spae_core.configs import PyramidConfig, QuantizerConfig
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.nearest_entry import nearest_entry
from spae_core.pyramid import DilationSubsampler
from spae_core.structs import Assignment, QuantizerOutput


def axis_scales(embedding_dim: int, decay: float, device: torch.device | None = None) -> Tensor:
    """Scale of each axis of the lookup space, (C,): i^−decay, with a root mean square of 1."""
    scales = torch.arange(1, embedding_dim + 1, dtype=torch.float32, device=device).pow(-decay)
    return scales / scales.square().mean().sqrt()


class StreamingAverageQuantizer(nn.Module):
    """Chooses one entry a pyramid cell, coarse layer first, so that the mean of a cell's entries nears its latent.

    With `kind="residual"` a cell is the sum of its entries instead of their mean.
    """

    entries: Tensor

    def __init__(
        self, config: QuantizerConfig, pyramid: PyramidConfig, codebook: LexicalCodebook, embedding_dim: int
    ) -> None:
        """Build the quantizer.

        Raises:
            ModelError: If the codebook's width is not `embedding_dim` and no projection is to be trained, or if a
                projection is to be wider than the codebook has axes.
        """
        super().__init__()
        if not config.trainable_projection and codebook.embedding_dim != embedding_dim:
            raise ModelError(
                f"codebook: expected embedding_dim {embedding_dim} as the model has, got {codebook.embedding_dim} "
                f"({codebook.source}). Build one with `spae codebook --embedding-dim {embedding_dim}`."
            )
        if config.trainable_projection and embedding_dim > min(codebook.embeddings.shape):
            raise ModelError(
                f"embedding_dim: expected at most {min(codebook.embeddings.shape)} for a projection of a codebook "
                f"{tuple(codebook.embeddings.shape)}, got {embedding_dim}. A projection cannot add axes; lower it."
            )
        self.config = config
        self.subsampler = DilationSubsampler(pyramid)
        scales = axis_scales(embedding_dim, config.axis_decay, codebook.embeddings.device)
        lookup = codebook.embeddings if config.trainable_projection else codebook.embeddings * scales
        self.register_buffer("entries", lookup, persistent=False)
        self.projection: nn.Linear | None = None
        if config.trainable_projection:
            self.projection = nn.Linear(codebook.embedding_dim, embedding_dim, bias=False)
            self._start_projection_from_principal_axes(codebook.embeddings, scales)

    @torch.no_grad()
    def _start_projection_from_principal_axes(self, embeddings: Tensor, scales: Tensor) -> None:
        assert self.projection is not None
        centred = embeddings - embeddings.mean(dim=0)
        _, singular_values, axes = torch.linalg.svd(centred, full_matrices=False)
        width = self.projection.out_features
        scale = scales[:width] * len(embeddings) ** 0.5 / singular_values[:width].clamp_min(1e-8)
        self.projection.weight.copy_(scale[:, None] * axes[:width])

    @property
    def table_is_trained(self) -> bool:
        """Whether gradients reach what is searched: a projection, or the entries themselves."""
        return self.projection is not None or isinstance(self.entries, nn.Parameter)

    def train_entries(self) -> None:
        """Let every entry move freely from here on, as in VQ-VAE: words in name only, for comparison."""
        entries = self.entries.clone()
        del self.entries
        self.entries = nn.Parameter(entries)

    def table(self) -> Tensor:
        """The vectors that are searched, (V, C): the codebook's, or their trained projection on the unit sphere."""
        if self.projection is None:
            return self.entries
        return F.normalize(self.projection(self.entries - self.entries.mean(dim=0)), dim=1)

    def assign(
        self,
        latents: Tensor,
        *,
        num_layers: int | None = None,
        masks: Tensor | None = None,
        given: Tensor | None = None,
        exact: bool = True,
    ) -> Assignment:
        """Choose entries for every owned cell.

        Args:
            latents: (B, C, H, W), or a window of the latent grid when `masks` says what its cells own.
            num_layers: Layers to use, 1 to D. Default: all.
            masks: bool (B, D, H, W) ownership, for windows. Default: the whole pyramid's.
            given: int64 (B, D, H, W) entries fixed from outside, −1 where the search decides. They count towards
                the mean; a cell that has only such entries is left out of the commitment loss.
            exact: Whether near ties are searched again in float64; see `nearest_entry`.

        Returns:
            The assignment; its loss terms are means over cells.
        """
        batch, _, height, width = latents.shape
        depth = self._checked_depth(num_layers)
        owned = self.subsampler.masks if masks is None else masks
        owned = owned.expand(batch, *owned.shape[-3:])
        table = self.table()
        cells_z = latents.float().permute(0, 2, 3, 1)
        total = torch.zeros_like(cells_z).detach()
        count = latents.new_zeros((batch, height, width), dtype=torch.float32)
        searched = torch.zeros_like(count, dtype=torch.bool)
        indices = torch.full((batch, owned.shape[1], height, width), -1, device=latents.device)
        commitment, codebook = latents.new_zeros(()).float(), latents.new_zeros(()).float()
        targets, target_cells = [], []
        for layer in range(depth):
            cells = owned[:, layer].nonzero()
            at = tuple(cells.unbind(dim=1))
            target = self._layer_target(cells_z[at], total[at].detach(), count[at])
            chosen, was_searched = self._choose(target, table, None if given is None else given[:, layer][at], exact)
            indices[:, layer][at] = chosen
            total = total.index_put(at, table[chosen], accumulate=True)
            count = count.index_put(at, torch.ones_like(count[at]), accumulate=True)
            searched = searched.index_put(at, searched[at] | was_searched)
            if searched.any():
                mean = self._represent(total, count)
                commitment = commitment + self._distance(cells_z, mean.detach(), searched)
                if self.table_is_trained:
                    codebook = codebook + self._distance(cells_z.detach(), mean, searched)
            targets.append(target)
            target_cells.append(cells)
        quantized = self._represent(total, count).permute(0, 3, 1, 2)
        if masks is None:
            quantized = self.subsampler.fill(quantized, depth)
        return Assignment(
            indices=indices,
            quantized=quantized,
            commitment_loss=self.config.commitment_weight * commitment,
            codebook_loss=codebook,
            layer_targets=tuple(targets),
            layer_cells=tuple(target_cells),
        )

    def quantize(self, latents: Tensor, *, num_layers: int | None = None) -> QuantizerOutput:
        """Choose one codebook entry per pyramid cell, coarse layer first.

        A cell that several layers own is represented by the mean of its entries, so each new layer aims at what the
        mean still misses: after entries e_1..e_k the next is the one nearest to latent + sum(latent − e_i).

        Args:
            latents: Encoder output (B, C, H, W), not normalised.
            num_layers: Layers to use, 1 to D. Fewer give fewer tokens and a coarser image. Default: all.

        Returns:
            `quantized` (B, C, H, W), straight-through; `code_indices`, one int64 (B, h_l, w_l) a layer, in [0, V);
            `commitment_loss`, scalar.

        Raises:
            ValueError: If the channels are not C or the grid is not the pyramid's; the message has both values.
        """
        grid = self.subsampler.config.grid
        expected = (self.table().shape[1], *grid)
        if tuple(latents.shape[1:]) != expected:
            raise ValueError(
                f"latents: expected (B, {expected[0]}, {grid[0]}, {grid[1]}), got {tuple(latents.shape)}. "
                "Encode images of the model's size."
            )
        assignment = self.assign(latents, num_layers=num_layers)
        return QuantizerOutput(
            quantized=latents + (assignment.quantized - latents).detach(),
            code_indices=self.to_layers(assignment.indices, num_layers),
            commitment_loss=assignment.commitment_loss,
        )

    def to_layers(self, indices: Tensor, num_layers: int | None = None) -> tuple[Tensor, ...]:
        """Split cell-wise indices (B, D, H, W) into one (B, h_l, w_l) a layer."""
        depth = self._checked_depth(num_layers)
        return tuple(self.subsampler.gather(indices[:, layer], layer) for layer in range(depth))

    def lookup(self, code_indices: tuple[Tensor, ...], num_layers: int | None = None) -> Tensor:
        """Turn tokens back into what they stand for, (B, C, H, W); the inverse of `quantize` up to its error.

        Args:
            code_indices: One int64 (B, h_l, w_l) a layer, coarse first.
            num_layers: Layers to use, 1 to those given. Default: all given.

        Raises:
            ModelError: If there are fewer layers than asked for, or an index points outside the codebook.
        """
        depth = self._checked_depth(len(code_indices) if num_layers is None else num_layers)
        if depth > len(code_indices):
            raise ModelError(
                f"num_layers: expected 1 to {len(code_indices)}, got {depth}. The pyramid has no more layers."
            )
        table = self.table()
        for layer, indices in enumerate(code_indices[:depth], 1):
            lowest, highest = indices.aminmax() if indices.numel() else (0, 0)
            if int(lowest) < 0 or int(highest) >= len(table):
                raise ModelError(
                    f"tokens of layer {layer}: expected 0 to {len(table) - 1}, got {int(lowest)} to {int(highest)}. "
                    "Decode with the codebook that made them."
                )
        height, width = self.subsampler.config.grid
        first = code_indices[0]
        total = table.new_zeros((len(first), height, width, table.shape[1]))
        count = table.new_zeros((len(first), height, width))
        for layer in range(depth):
            chosen = self.subsampler.scatter(code_indices[layer], layer)
            owned = self.subsampler.masks[layer]
            total = total + table[chosen.clamp_min(0)] * owned[..., None]
            count = count + owned
        return self.subsampler.fill(self._represent(total, count).permute(0, 3, 1, 2), depth)

    def _layer_target(self, latents: Tensor, total: Tensor, count: Tensor) -> Tensor:
        """z_l = z + Σ_{i<l} m_i (z − e(k_i)), which is (n + 1) z − Σ e; residual quantization aims at z − Σ e."""
        if self.config.kind == "residual":
            return latents - total
        return (count[:, None] + 1) * latents - total

    def _represent(self, total: Tensor, count: Tensor) -> Tensor:
        """What the entries of a cell stand for together: their mean, or their sum for residual quantization."""
        return total if self.config.kind == "residual" else total / count.clamp_min(1)[..., None]

    def _distance(self, first: Tensor, second: Tensor, cells: Tensor) -> Tensor:
        squares = (first - second).square()
        summed = squares.sum(dim=-1) if self.config.commitment_reduction == "sum" else squares.mean(dim=-1)
        return (summed * cells).sum() / cells.sum()

    @staticmethod
    def _choose(target: Tensor, table: Tensor, given: Tensor | None, exact: bool) -> tuple[Tensor, Tensor]:
        """Search where nothing is given; return the entries and where the search decided."""
        if given is None:
            chosen = nearest_entry(target.detach(), table.detach(), exact=exact)
            return chosen, torch.ones_like(chosen, dtype=torch.bool)
        chosen, free = given.clone(), given < 0
        chosen[free] = nearest_entry(target.detach()[free], table.detach(), exact=exact)
        return chosen, free

    def _checked_depth(self, num_layers: int | None) -> int:
        deepest = self.subsampler.config.num_layers
        if num_layers is None:
            return deepest
        if not 1 <= num_layers <= deepest:
            raise ModelError(f"num_layers: expected 1 to {deepest}, got {num_layers}. The model has {deepest} layers.")
        return num_layers

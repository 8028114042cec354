"""Semantic guidance: pull the latents of a picture towards words that mean what it shows.

A picture's *candidates* for a layer are the words most similar to it in a space that pictures and words
share; coarse layers have few, fine layers many. The loss is the cross-entropy of the soft assignment against
a random candidate.

Source: arXiv 2306.17842, section on semantic guidance.

Letters: B batch, V codebook size, T feature_dim, C embedding_dim, L guided layers, N_l owned cells of layer l
in the batch, M longest candidate list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spae_core.losses import negative_squared_distances, sample_rows

PAPER_THRESHOLDS = (0.98, 0.95, 0.90, 0.85, 0.80)
NEAREST_COUNTS = (3, 8, 20, 60, 150)


@dataclass(frozen=True, kw_only=True, slots=True)
class SemanticCandidates:
    """Candidate words of each picture and layer, as prefixes of one ranked list a picture.

    Attributes:
        ranked: int64 (B, M), code indices by falling similarity.
        counts: int64 (L, B), how many of the first entries are candidates in a layer; at least 1.
    """

    ranked: Tensor
    counts: Tensor

    @property
    def num_layers(self) -> int:
        """L."""
        return self.counts.shape[0]

    def draw(self, layer: int, image_indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one candidate, uniformly, for each of N cells.

        Args:
            layer: From 0.
            image_indices: int64 (N,), the picture of each cell, in [0, B).
            generator: Draws; default torch's own.

        Returns:
            int64 (N,) code indices.
        """
        counts = self.counts[layer][image_indices]
        device = generator.device if generator is not None else counts.device
        # float64, because float32 would round u·n up to n now and then.
        uniform = torch.rand(len(counts), generator=generator, device=device, dtype=torch.float64)
        position = (uniform.to(counts.device) * counts).long()
        return self.ranked[image_indices, position]


def semantic_similarity(image_features: Tensor, word_features: Tensor) -> Tensor:
    """Similarity of pictures and words, stretched to [0, 1] over the vocabulary of each picture.

    Args:
        image_features: (B, T) of unit norm.
        word_features: (V, T) of unit norm.

    Returns:
        float32 (B, V): 1 for the nearest word, 0 for the farthest; all 1 where all are equally near.

    Raises:
        ValueError: If the widths differ.
    """
    if image_features.shape[1:] != word_features.shape[1:]:
        raise ValueError(
            f"semantic features: expected words of width {image_features.shape[1]}, got "
            f"{word_features.shape[1]}. Encode both with one encoder."
        )
    similarity = image_features.float() @ word_features.float().T
    highest, lowest = similarity.amax(dim=1, keepdim=True), similarity.amin(dim=1, keepdim=True)
    return 1.0 - (highest - similarity) / (highest - lowest).clamp_min(1e-12)


def semantic_candidates(
    similarity: Tensor, *, thresholds: Sequence[float] | None = None, nearest: Sequence[int] | None = None
) -> SemanticCandidates:
    """Choose the candidate words of every picture, by one of two rules.

    The paper's thresholds suit CLIP. ConSE's similarities are peaked, and the same thresholds leave one to
    three words a picture: take the nearest words instead.

    Args:
        similarity: (B, V) in [0, 1], 1 for the nearest word of each picture.
        thresholds: ρ_l in [0, 1] for each layer, falling; candidates have at least that similarity
            (`PAPER_THRESHOLDS`).
        nearest: Number of candidates for each layer, rising (`NEAREST_COUNTS`); all words if there are fewer.

    Returns:
        The candidates; of equal similarities the lower code index ranks first.

    Raises:
        ValueError: If not exactly one rule is given, or a value leaves a layer without candidates.
    """
    if (thresholds is None) == (nearest is None):
        raise ValueError(
            f"candidate rule: expected either thresholds or nearest, got {thresholds} and {nearest}. Give one of them."
        )
    batch, codebook_size = similarity.shape
    if thresholds is not None:
        if not thresholds or not all(0.0 <= threshold <= 1.0 for threshold in thresholds):
            raise ValueError(
                f"thresholds: expected one value in [0, 1] for each layer, got {tuple(thresholds)}. "
                f"The paper's are {PAPER_THRESHOLDS}."
            )
        counts = torch.stack([(similarity >= threshold).sum(dim=1) for threshold in thresholds])
    else:
        assert nearest is not None
        if not nearest or min(nearest) < 1:
            raise ValueError(
                f"nearest: expected at least 1 word for each layer, got {tuple(nearest)}. Try {NEAREST_COUNTS}."
            )
        sizes = torch.tensor([min(count, codebook_size) for count in nearest], device=similarity.device)
        counts = sizes.unsqueeze(1).expand(-1, batch)
    if int(counts.min()) < 1:
        raise ValueError(
            f"similarity: expected 1 for the nearest word of each picture, got at most "
            f"{float(similarity.amax()):.3g}. Use semantic_similarity, which stretches to [0, 1]."
        )
    longest = int(counts.max())
    ranked = similarity.sort(dim=1, descending=True, stable=True).indices[:, :longest].contiguous()
    return SemanticCandidates(ranked=ranked, counts=counts)


def semantic_guidance_loss(
    layer_targets: Sequence[Tensor],
    image_indices: Sequence[Tensor],
    codebook: Tensor,
    candidates: SemanticCandidates,
    *,
    temperature: float = 1.0,
    max_cells: int | None = 1024,
    chunk_size: int = 256,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cross-entropy of the soft assignment of each cell against a random candidate of its picture.

    Mean over layers of the mean over cells of −log softmax_k(−‖z_l − e(k)‖² / temperature)[c], c uniform from
    C_l(I), the softmax over all V codes. Layers count alike, however many cells they own.

    Memory is at most chunk_size × V numbers at a time, in both passes: chunks are recomputed in backward.

    Args:
        layer_targets: L tensors (N_l, C): the layer target z_l of the cells that layer l owns, over the whole
            batch.
        image_indices: L tensors int64 (N_l,): the picture of each of these rows, in [0, B).
        codebook: (V, C), in the space of the targets.
        candidates: Of the same batch, for at least L layers.
        temperature: 1 is the paper's; on codes of norm 1, where the distances span 4 at most, about 0.05 is
            needed.
        max_cells: Cells of a layer to use, drawn without replacement; None for all.
        chunk_size: Cells at a time.
        generator: Draws cells and candidates; default torch's own.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: If the lists have different lengths, a layer has no cell, or there are too few candidate
            layers.

    Source: arXiv 2306.17842, semantic guidance loss. Sampling and chunking are ours.
    """
    if not 0 < len(layer_targets) == len(image_indices) <= candidates.num_layers:
        raise ValueError(
            f"semantic guidance: expected as many targets as image indices, 1 to {candidates.num_layers}, "
            f"got {len(layer_targets)} and {len(image_indices)}. Choose candidates for every guided layer."
        )
    total = torch.zeros((), device=codebook.device)
    for layer, (targets, images) in enumerate(zip(layer_targets, image_indices, strict=True)):
        if not 0 < len(targets) == len(images):
            raise ValueError(
                f"semantic guidance, layer {layer + 1}: expected at least one target and an image index for "
                f"each, got {len(targets)} and {len(images)}. Pass the cells that the layer owns."
            )
        rows = sample_rows(torch.arange(len(targets), device=targets.device), max_cells, generator)
        chosen = candidates.draw(layer, images[rows], generator)
        layer_sum = torch.zeros((), device=codebook.device)
        for chunk_rows, chunk_codes in zip(torch.split(rows, chunk_size), torch.split(chosen, chunk_size), strict=True):
            chunk_sum: Tensor = checkpoint(
                _cross_entropy_sum,
                targets[chunk_rows],
                codebook,
                chunk_codes,
                temperature,
                use_reentrant=False,
                preserve_rng_state=False,  # nothing random inside
            )
            layer_sum = layer_sum + chunk_sum
        total = total + layer_sum / len(rows)
    return total / len(layer_targets)


def _cross_entropy_sum(targets: Tensor, codebook: Tensor, code_indices: Tensor, temperature: float) -> Tensor:
    logits = negative_squared_distances(targets, codebook) / temperature
    return F.cross_entropy(logits, code_indices, reduction="sum")

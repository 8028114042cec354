"""The training loss of one step: every term, and their weighted sum.

Source: arXiv 2306.17842, section on losses: L = L_app + α·w·L_sem. What the paper does not have is marked in
`training_config`. The discriminator's own loss is in `adversary`.

Letters: B batch, S side of picture or window in pixels, V codebook size, T text width, N crops.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spae_core.adversary import Adversary
from spae_core.errors import ModelError
from spae_core.losses import dynamic_weight, entropy_loss, reconstruction_loss
from spae_core.perceptual import Lpips
from spae_core.replicas import Replicas
from spae_core.semantic_guidance import semantic_candidates, semantic_guidance_loss, semantic_similarity
from spae_core.structs import Assignment
from spae_core.tokenizer import SpaeTokenizer
from spae_core.training_config import TrainingConfig


def network_autocast(recipe: TrainingConfig, device: str) -> torch.autocast:
    """The arithmetic of networks in a training: the recipe's precision."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16")


class Objective:
    """Compares what a model made of pictures with the pictures.

    Attributes:
        lpips: The perceptual distance, or None when the recipe does without.
    """

    def __init__(
        self,
        model: SpaeTokenizer,
        recipe: TrainingConfig,
        *,
        device: str,
        lpips: Lpips | None = None,
        image_features: Tensor | None = None,
        word_features: Tensor | None = None,
        words_are_given: bool = False,
        replicas: Replicas | None = None,
    ) -> None:
        """Bring the recipe's terms together with what they need.

        Args:
            model: What is trained.
            recipe: Which terms count, and how much.
            device: Where the model is.
            lpips: For the perceptual term.
            image_features: (N, T) of unit norm, for the semantic term.
            word_features: (V, T) of unit norm, by the same encoder.
            words_are_given: Whether the semantic head fixes the words of its layers.
            replicas: Processes that share each batch; default this one alone.

        Raises:
            ModelError: If a term of the recipe lacks what it needs.
        """
        if recipe.perceptual_weight and lpips is None:
            raise ModelError(
                "perceptual_weight: expected LPIPS weights beside it, got none. Give them, or set it to 0."
            )
        if recipe.semantic.weight and (image_features is None or word_features is None):
            raise ModelError(
                "semantic.weight: expected image and word features beside it, got none. Give them, or set it to 0."
            )
        self.model, self.recipe, self.device = model, recipe, device
        self.lpips = lpips.to(device) if lpips is not None and recipe.perceptual_weight else None
        self.replicas = replicas or Replicas()
        self.image_features, self.word_features = image_features, word_features
        ranked = model.config.ranked_words
        # 0-indexed first layer whose words the encoder chooses.
        self._first_searched_layer = ranked.num_layers if ranked is not None and words_are_given else 0

    def terms(
        self,
        decoded: Tensor,
        images: Tensor,
        assignment: Assignment,
        rows: Tensor,
        *,
        step: int,
        adversary: Adversary | None,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Every term before its weight, and `total`, their weighted sum.

        Args:
            decoded: (B, 3, S, S), with gradient.
            images: (B, 3, S, S) in [0, 1].
            assignment: What the quantizer chose between the two.
            rows: int64 (B,), which of the N crops they are.
            step: Steps done before this one; terms may start late.
            adversary: The opponent, if it counts in this step.
            generator: Draws cells and candidate words.

        Returns:
            Scalars. A term that has no cells to look at in this batch is 0.
        """
        recipe = self.recipe
        terms = self._appearance_terms(decoded, images, assignment, step, generator)
        if adversary is not None:
            terms["adversarial"] = adversary.generator_loss(decoded)
        weights = {
            "reconstruction": recipe.reconstruction_weight,
            "commitment": 1.0,
            "codebook": 1.0,
            "perceptual": recipe.perceptual_weight,
            "entropy": recipe.entropy_weight,
            "adversarial": recipe.adversarial.weight,
        }
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        if recipe.semantic.weight:
            terms["semantic"] = semantic = self._semantic_term(assignment, rows, generator)
            mean = self.replicas.mean
            balance = dynamic_weight(mean(total.detach()), mean(semantic.detach()))
            scale = balance if recipe.semantic.dynamic_weight else 1.0
            total = total + recipe.semantic.weight * scale * semantic
        terms["total"] = total
        return terms

    def _appearance_terms(
        self, decoded: Tensor, images: Tensor, assignment: Assignment, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        terms = {
            "reconstruction": reconstruction_loss(decoded, images),
            "commitment": assignment.commitment_loss,
            "codebook": assignment.codebook_loss,
        }
        if self.lpips is not None and step >= recipe.perceptual_start_step:
            seen = self.replicas.part_of(recipe.perceptual_pictures) or len(images)
            with network_autocast(recipe, self.device):
                terms["perceptual"] = self.lpips(decoded[:seen], images[:seen]).mean()
        if recipe.entropy_weight:
            terms["entropy"] = self._entropy_term(assignment, generator)
        return terms

    def _entropy_term(self, assignment: Assignment, generator: torch.Generator) -> Tensor:
        searched = [cells for cells in assignment.layer_targets[self._first_searched_layer :] if len(cells)]
        if not searched:  # the step decodes from words that were given, and no search took place
            return assignment.commitment_loss.new_zeros(())
        return entropy_loss(
            torch.cat(searched),
            self.model.quantizer.table().detach(),
            temperature=self.recipe.entropy_temperature,
            max_cells=self.replicas.part_of(self.recipe.entropy_cells),
            generator=generator,
            replicas=self.replicas,
        )

    def _semantic_term(self, assignment: Assignment, rows: Tensor, generator: torch.Generator) -> Tensor:
        semantic = self.recipe.semantic
        assert self.image_features is not None
        assert self.word_features is not None
        used = min(semantic.num_layers, len(assignment.layer_targets))
        # Windows can miss all cells of a coarse layer; the loss is the mean over the others.
        present = [layer for layer in range(used) if len(assignment.layer_targets[layer])]
        if not present:
            return assignment.commitment_loss.new_zeros(())
        similarity = semantic_similarity(self.image_features[rows].to(self.device), self.word_features.to(self.device))
        candidates = (
            semantic_candidates(similarity, thresholds=semantic.thresholds[:used])
            if semantic.rule == "threshold"
            else semantic_candidates(similarity, nearest=semantic.nearest[:used])
        )
        return semantic_guidance_loss(
            [assignment.layer_targets[layer] for layer in present],
            [assignment.layer_cells[layer][:, 0] for layer in present],
            self.model.quantizer.table(),
            replace(candidates, counts=candidates.counts[present]),
            temperature=semantic.temperature,
            max_cells=self.replicas.part_of(semantic.max_cells),
            generator=generator,
        )

"""What each ablation changes. Every variant differs from the reference in one thing, but the two marked otherwise.

The reference is `spae-smol-128` without ranked words: nothing in it pulls words towards meaning. LPIPS and the
compiler are off in all of them, which makes steps cheap and alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch.nn import functional as F

from spae_core.configs import SpaeConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import preset
from spae_core.training_config import SemanticConfig, TrainingConfig, smol_recipe

# ConSE's similarities are peaked, and codes of norm 1 need a sharp softmax: the settings that suit them.
_JOINT = SemanticConfig(weight=1.0, rule="nearest", temperature=0.05, max_cells=256)
#: About what the dynamic weight is in the first hundred steps.
FIXED_WEIGHT = 0.005


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One model and recipe to compare.

    Attributes:
        question: What it answers, for the table.
        config: Changes the reference's model.
        recipe: Changes the reference's recipe.
        embedding_dim: Axes of the lookup space, at most the codebook's.
        entries_are_trained: Whether every entry moves freely.
    """

    question: str
    config: Callable[[SpaeConfig], SpaeConfig] = lambda config: config
    recipe: Callable[[TrainingConfig], TrainingConfig] = lambda recipe: recipe
    embedding_dim: int | None = None
    entries_are_trained: bool = False


def _quantizer(**changes: object) -> Callable[[SpaeConfig], SpaeConfig]:
    return lambda config: replace(config, quantizer=replace(config.quantizer, **changes))


def _recipe(**changes: object) -> Callable[[TrainingConfig], TrainingConfig]:
    return lambda recipe: replace(recipe, **changes)


VARIANTS: dict[str, Variant] = {
    "reference": Variant(question="SAQ, frozen words, no meaning"),
    "trained-projection": Variant(
        question="learned codebook: a linear map of the words", config=_quantizer(trainable_projection=True)
    ),
    "trained-entries": Variant(question="learned codebook: free entries", entries_are_trained=True),
    "residual": Variant(question="residual quantization", config=_quantizer(kind="residual")),
    "joint-dynamic": Variant(question="semantic loss, dynamic weight", recipe=_recipe(semantic=_JOINT)),
    "joint-fixed": Variant(
        question=f"semantic loss, fixed weight {FIXED_WEIGHT}",
        recipe=_recipe(semantic=replace(_JOINT, weight=FIXED_WEIGHT, dynamic_weight=False)),
    ),
    "ranked-words": Variant(
        question="ranked words of a semantic head",
        config=lambda config: replace(config, ranked_words=preset("spae-smol-128").ranked_words),
    ),
    "axes-alike": Variant(question="lookup space without decay of its axes", config=_quantizer(axis_decay=0.0)),
    "16-axes": Variant(question="lookup space of 16 axes", embedding_dim=16),
    "8-axes": Variant(question="lookup space of 8 axes", embedding_dim=8),
    "no-entropy": Variant(question="no entropy term", recipe=_recipe(entropy_weight=0.0)),
    "no-matched-start": Variant(question="no matched start", recipe=_recipe(matched_start=False)),
    "no-layer-dropout": Variant(question="no layer dropout", recipe=_recipe(layer_dropout=0.0)),
    # Another pyramid and no ownership embedding: a baseline, not a change of one thing.
    "lqae": Variant(question="LQAE-style, 256 tokens", config=lambda _: preset("spae-lqae-128")),
}


def reference_config() -> SpaeConfig:
    """The model that variants change."""
    return replace(preset("spae-smol-128"), ranked_words=None)


def reference_recipe(num_steps: int, seed: int) -> TrainingConfig:
    """The recipe that variants change, its schedule over `num_steps`."""
    return replace(
        smol_recipe(),
        num_steps=num_steps,
        warmup_steps=min(200, max(1, num_steps // 10)),
        perceptual_weight=0.0,
        compile_networks=False,
        seed=seed,
        log_every=100,
        checkpoint_every=500,
    )


def narrowed(codebook: LexicalCodebook, num_axes: int) -> LexicalCodebook:
    """The first axes of a codebook, which are the main ones, with rows of norm 1 again."""
    return LexicalCodebook(
        embeddings=F.normalize(codebook.embeddings[:, :num_axes], dim=1),
        token_ids=codebook.token_ids,
        words=codebook.words,
        source=f"{codebook.source}, {num_axes} axes",
        settings=codebook.settings,
    )

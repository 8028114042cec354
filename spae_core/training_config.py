"""Every number of a training run, and the recipes: the paper's, and the one behind the shipped model.

Source: arXiv 2306.17842, appendix on implementation. What the paper does not have is marked and off by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, pi
from typing import ClassVar, Literal

from spae_core.configs import REFUSE_UNKNOWN
from spae_core.errors import ModelError


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialConfig:
    """Weights of the GAN terms.

    Attributes:
        weight: λ of the generator's non-saturating loss; 0 trains without a discriminator.
        start_step: Step from which on it counts; the networks before it start warm.
        r1_cost: Of the gradient penalty on real pictures.
        r1_every: Steps between penalties (each weighted by this number, "lazy" R1); 1 is the paper's.
        r1_pictures_at_once: Pictures whose second derivatives are in memory together; changes rounding alone.
        lecam_weight: φ of the LeCam term.
        lecam_decay: EMA decay of its batch means.
        base_channels: Width of the discriminator's first block.
    """

    weight: float = 0.1
    start_step: int = 0
    r1_cost: float = 10.0
    r1_every: int = 1
    r1_pictures_at_once: int = 32
    lecam_weight: float = 1e-4
    lecam_decay: float = 0.999
    base_channels: int = 128
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN


@dataclass(frozen=True, kw_only=True, slots=True)
class SemanticConfig:
    """The semantic guidance loss.

    Attributes:
        weight: α; 0 trains without it.
        dynamic_weight: Scale by w = sg(L_app / L_sem), as the paper does, or not.
        num_layers: Layers it guides, from the top.
        rule: `threshold` takes words of similarity ≥ ρ_l (for CLIP), `nearest` the n_l nearest (for ConSE, whose
            similarities are peaked). `nearest` is not in the paper.
        thresholds: ρ_l.
        nearest: n_l.
        temperature: Of the softmax over the vocabulary; 1 is the paper's, .05 suits codes on the unit sphere.
        max_cells: Cells sampled a layer, against the memory peak of layer 5.
    """

    weight: float = 1.0
    dynamic_weight: bool = True
    num_layers: int = 5
    rule: Literal["threshold", "nearest"] = "threshold"
    thresholds: tuple[float, ...] = (0.98, 0.95, 0.90, 0.85, 0.80)
    nearest: tuple[int, ...] = (3, 8, 20, 60, 150)
    temperature: float = 1.0
    max_cells: int = 2048
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """One training run.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Crops a step.
        window_cells: Side of the latent window that is trained on, in cells; 0 for the whole picture. Quantization is
            cell by cell, so a window is exact up to border effects. Not in the paper.
        learning_rate: Adam's peak.
        adam_betas: Adam's.
        warmup_steps: Linear warm-up.
        final_learning_rate: Share of the peak at the end of the cosine decay; 1 keeps it constant.
        gradient_clip_norm: Global norm; 0 for none.
        ema_decay: Of the weights used for evaluation.
        precision: Of the networks' arithmetic; the search and the losses stay float32.
        channels_last: Memory layout of the networks; faster on most machines, other rounding.
        reconstruction_weight: Of the mean squared error over pixels.
        perceptual_weight: η of LPIPS.
        perceptual_net: Its trunk.
        perceptual_start_step: Step from which on it counts; before it, steps are cheaper by its whole cost.
        perceptual_pictures: Pictures of each batch it looks at; 0 for all. LPIPS costs more than the networks here.
        compile_networks: Let torch.compile fuse the networks' arithmetic; needs a C++ compiler on a CPU.
        recompute_activations: Compute residual blocks again in the backward pass in place of keeping what is inside
            them: a third more arithmetic for a fraction of the memory; changes no result.
        entropy_weight: Of the codebook entropy term. Not in the paper.
        entropy_temperature: Of its soft assignments.
        entropy_cells: Cells sampled for it a step.
        layer_dropout: Chance that a step decodes from a shorter prefix of layers. Not in the paper.
        matched_start: Begin with latents of the codebook's mean and covariance. Not in the paper.
        adversarial: GAN terms.
        semantic: Semantic guidance.
        seed: Of everything random.
        log_every: Steps between log lines.
        evaluate_every: Steps between looks at fixed pictures.
        checkpoint_every: Steps between checkpoints.
    """

    num_steps: int = 450_000
    batch_size: int = 256
    window_cells: int = 0
    learning_rate: float = 1e-4
    adam_betas: tuple[float, float] = (0.0, 0.99)
    warmup_steps: int = 5_000
    final_learning_rate: float = 1.0
    gradient_clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    channels_last: bool = True
    reconstruction_weight: float = 1.0
    perceptual_weight: float = 0.1
    perceptual_net: Literal["vgg", "alex"] = "vgg"
    perceptual_start_step: int = 0
    perceptual_pictures: int = 0
    compile_networks: bool = False
    recompute_activations: bool = False
    entropy_weight: float = 0.0
    entropy_temperature: float = 0.05
    entropy_cells: int = 512
    layer_dropout: float = 0.0
    matched_start: bool = False
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    seed: int = 0
    log_every: int = 50
    evaluate_every: int = 500
    checkpoint_every: int = 500
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN

    def __post_init__(self) -> None:
        """Refuse runs that cannot step."""
        if self.num_steps < 1 or self.batch_size < 1:
            raise ModelError(
                f"training: expected num_steps and batch_size of at least 1, "
                f"got {self.num_steps} and {self.batch_size}. Raise them."
            )
        if not 0 <= self.layer_dropout <= 1:
            raise ModelError(f"layer_dropout: expected a chance in [0, 1], got {self.layer_dropout}.")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to the final share; `step` counts from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        cosine = 0.5 * (1 + cos(pi * progress))
        return self.learning_rate * (self.final_learning_rate + (1 - self.final_learning_rate) * cosine)


def paper_recipe() -> TrainingConfig:
    """The paper's: all losses, batch 256, 450,000 steps; recomputing, it fits one GPU of 80 GB."""
    return TrainingConfig(recompute_activations=True)


def smol_recipe() -> TrainingConfig:
    """The shipped model's: meaning from the semantic head, appearance from the rest, for a CPU."""
    return TrainingConfig(
        num_steps=4_700,
        batch_size=16,
        window_cells=8,
        learning_rate=1e-3,
        adam_betas=(0.9, 0.99),
        warmup_steps=200,
        final_learning_rate=0.02,
        perceptual_weight=0.02,
        perceptual_start_step=3_500,
        perceptual_pictures=8,
        compile_networks=True,
        entropy_weight=0.001,
        entropy_cells=128,
        layer_dropout=0.25,
        matched_start=True,
        adversarial=AdversarialConfig(weight=0.0),
        semantic=SemanticConfig(weight=0.0),
    )


def lqae_recipe() -> TrainingConfig:
    """The baseline's: that of the shipped model, so that the two differ in nothing but the model."""
    return smol_recipe()


def tiny_recipe() -> TrainingConfig:
    """For tests: seconds on a CPU, every part of the paper's loss that needs no downloaded weights."""
    return TrainingConfig(
        num_steps=20,
        batch_size=4,
        learning_rate=1e-3,
        adam_betas=(0.9, 0.99),
        warmup_steps=2,
        precision="float32",
        channels_last=False,
        perceptual_weight=0.0,
        matched_start=True,
        adversarial=AdversarialConfig(base_channels=8),
        semantic=SemanticConfig(weight=0.0),
        log_every=1,
        evaluate_every=10,
        checkpoint_every=5,
    )


RECIPES = {
    "spae-b-128": paper_recipe,
    "spae-8-128": paper_recipe,
    "spae-smol-128": smol_recipe,
    "spae-lqae-128": lqae_recipe,
    "tiny": tiny_recipe,
}

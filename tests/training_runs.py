"""Short training runs of the tiny model on made-up pictures, for the tests of the trainer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spae_core.checkpoint import checkpoint_path
from spae_core.configs import SpaeConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.perceptual import Lpips
from spae_core.presets import preset
from spae_core.tokenizer import SpaeTokenizer
from spae_core.trainer import Trainer
from spae_core.training_batches import TrainingData
from spae_core.training_config import TrainingConfig, tiny_recipe


def smooth_crops(count: int = 8) -> np.ndarray:
    """Two colours blending across each picture."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 32)[None, :, None, None]
    first, second = random.uniform(0, 255, (2, count, 1, 1, 3))
    return np.broadcast_to(first + ramp * (second - first), (count, 32, 32, 3)).astype(np.uint8)


def small_recipe(**changes: object) -> TrainingConfig:
    """The tiny recipe with a smaller discriminator."""
    tiny = tiny_recipe()
    return replace(tiny, **({"adversarial": replace(tiny.adversarial, base_channels=4)} | changes))


def plain_recipe(**changes: object) -> TrainingConfig:
    """Without the discriminator: what a test need not pay for."""
    return small_recipe(adversarial=replace(tiny_recipe().adversarial, weight=0.0), **changes)


def trainer_of(
    folder: Path,
    codebook: LexicalCodebook,
    recipe: TrainingConfig,
    *,
    config: SpaeConfig | None = None,
    data: TrainingData | None = None,
    lpips: Lpips | None = None,
    seed: int = 0,
) -> Trainer:
    torch.manual_seed(seed)
    model = SpaeTokenizer(config or preset("tiny"), codebook)
    return Trainer(model, recipe, data or TrainingData(crops=smooth_crops()), folder, lpips=lpips)


def stored(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(checkpoint_path(folder, step), weights_only=True)

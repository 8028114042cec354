"""The discriminator with its optimizer and regularizers, as one opponent of the trainer.

Source: arXiv 2306.17842, section on losses (from MAGVIT, arXiv 2212.05199): non-saturating GAN, R1, LeCam.

Letters: B batch, S image side in pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spae_core.discriminator import Discriminator
from spae_core.losses import (
    LeCamRegularizer,
    discriminator_adversarial_loss,
    generator_adversarial_loss,
    r1_penalty,
)
from spae_core.replicas import Replicas
from spae_core.training_config import TrainingConfig

_MULTIPLIERS = (2, 4, 4, 4, 4)
_SMALLEST_SIDE_PX = 4


class Adversary:
    """Judges decoded pictures and learns to tell them from real ones."""

    def __init__(
        self, recipe: TrainingConfig, *, image_size_px: int, device: str, replicas: Replicas | None = None
    ) -> None:
        """Build the discriminator for pictures (or windows) of `image_size_px`; small ones get fewer blocks."""
        self.config = recipe.adversarial
        self.replicas = replicas or Replicas()
        self.bfloat16 = recipe.precision == "bfloat16"
        blocks = (image_size_px // _SMALLEST_SIDE_PX).bit_length() - 1
        self.discriminator = Discriminator(
            image_size_px=image_size_px,
            base_channels=self.config.base_channels,
            channel_multipliers=_MULTIPLIERS[:blocks],
        ).to(device)
        self.lecam = LeCamRegularizer(decay=self.config.lecam_decay).to(device)
        self.optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=recipe.learning_rate, betas=recipe.adam_betas
        )

    def generator_loss(self, decoded: Tensor) -> Tensor:
        """How well decoded pictures (B, 3, S, S) pass as real; the gradient goes to them alone."""
        self.discriminator.requires_grad_(False)
        with self._autocast(decoded):
            logits = self.discriminator(decoded)
        return generator_adversarial_loss(logits)

    def step(self, real: Tensor, decoded: Tensor, learning_rate: float, step: int) -> dict[str, Tensor]:
        """Learn from one batch of each, both (B, 3, S, S) in [0, 1]; returns the terms, for the log."""
        self.discriminator.requires_grad_(True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with self._autocast(real):
            real_logits, fake_logits = self.discriminator(real), self.discriminator(decoded)
        mean = self.replicas.mean  # LeCam squares the means of the whole batch
        terms = {
            "discriminator": discriminator_adversarial_loss(real_logits, fake_logits),
            "lecam": self.lecam(mean(real_logits.float().mean()), mean(fake_logits.float().mean())),
        }
        total = terms["discriminator"] + self.config.lecam_weight * terms["lecam"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.config.r1_cost and step % self.config.r1_every == 0:
            terms["r1"] = self._penalize_slope(real)
        self.replicas.average_gradients(list(self.discriminator.parameters()))
        self.optimizer.step()
        return {name: term.detach() for name, term in terms.items()}

    def _penalize_slope(self, real: Tensor) -> Tensor:
        """Add the gradient of R1 over the batch (B, 3, S, S), some pictures at a time; returns the penalty."""
        penalty = real.new_zeros(())
        for pictures in real.split(self.config.r1_pictures_at_once):
            share = r1_penalty(self.discriminator, pictures, cost=self.config.r1_cost) * (len(pictures) / len(real))
            (self.config.r1_every * share).backward()
            penalty += share.detach()
        return penalty

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "lecam": self.lecam.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.lecam.load_state_dict(state["lecam"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

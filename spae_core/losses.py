"""Training losses of the autoencoder and its discriminator; the commitment loss lives in the quantizer.

Source: arXiv 2306.17842, section on losses: L = L_app + α·w·L_sem. What the paper inherits from MAGVIT
(arXiv 2212.05199) is marked; the semantic part is in `semantic_guidance`.

Letters: B batch, H×W pixels, N cells, C embedding_dim, V codebook size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spae_core.replicas import Replicas


def reconstruction_loss(images: Tensor, targets: Tensor) -> Tensor:
    """Squared error of the pixels, averaged over everything.

    The paper writes ‖I − Î‖², a sum. The mean keeps the other weights valid at any image size (MAGVIT does so
    too).

    Args:
        images: Decoded (B, 3, H, W).
        targets: (B, 3, H, W) in [0, 1].

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: If the shapes differ; they would broadcast silently.
    """
    if images.shape != targets.shape:
        raise ValueError(
            f"reconstruction: expected the shape of the targets {tuple(targets.shape)}, got "
            f"{tuple(images.shape)}. Crop both to the same window."
        )
    return F.mse_loss(images.float(), targets.float())


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of the generator: −log σ(D(Î)).

    Args:
        fake_logits: D of decoded images, (B,); gradients must flow through D to the images.

    Returns:
        Scalar, at least 0; log 2 when D is undecided.

    Source: Goodfellow et al. 2014 (arXiv 1406.2661), section 3; used by MAGVIT.
    """
    return F.softplus(-fake_logits.float()).mean()


def discriminator_adversarial_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss of the discriminator: −log σ(D(I)) − log(1 − σ(D(Î))).

    Args:
        real_logits: D of real images, (B,).
        fake_logits: D of decoded images, detached from the generator, (B,).

    Returns:
        Scalar, at least 0; 2 log 2 when D is undecided.

    Source: Goodfellow et al. 2014 (arXiv 1406.2661), section 3; used by MAGVIT.
    """
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real_images: Tensor, *, cost: float = 10.0) -> Tensor:
    """Penalise the discriminator's slope at real images: cost · mean_b ‖∇D(I_b)‖².

    Args:
        discriminator: Maps (B, 3, H, W) to (B,) without mixing images, so no batch norm.
        real_images: (B, 3, H, W); a graph of its own is built, the caller's tensor is untouched.
        cost: Weight of the penalty; MAGVIT's has no factor 1/2, unlike StyleGAN's γ.

    Returns:
        Scalar, at least 0, with a graph to D's parameters.

    Source: Mescheder et al. 2018 (arXiv 1801.04406), equation 9; cost 10 as in MAGVIT.
    """
    images = real_images.detach().requires_grad_(True)
    # float32: a second derivative in half precision is mostly rounding.
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = discriminator(images.float())
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return cost * slope.float().square().flatten(start_dim=1).sum(dim=1).mean()


class LeCamRegularizer(nn.Module):
    """Keep the discriminator's mean verdicts near the long-run ones of the other side.

    max(0, mean D(I) − ema_fake)² + max(0, ema_real − mean D(Î))², with exponential moving averages of the
    batch means. They are buffers, so a resumed run goes on exactly. The penalty is computed with the averages
    of the steps before, then they are updated (in training mode only).

    Args:
        decay: Of the moving averages, in [0, 1).

    Attributes:
        ema_real: Scalar, moving average of mean D(I); starts at 0.
        ema_fake: Scalar, moving average of mean D(Î); starts at 0.

    Source: Tseng et al. 2021 (arXiv 2104.03310), on batch means as in MAGVIT.
    """

    ema_real: Tensor
    ema_fake: Tensor

    def __init__(self, *, decay: float = 0.999) -> None:
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"LeCam decay: expected a value in [0, 1), got {decay}. The paper's is 0.999.")
        self.decay = decay
        self.register_buffer("ema_real", torch.zeros(()))
        self.register_buffer("ema_fake", torch.zeros(()))

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Penalty for this batch, a scalar of at least 0; the weight φ (1e-4) is the caller's.

        Args:
            real_logits: D of real images, (B,).
            fake_logits: D of decoded images, (B,).
        """
        real_mean, fake_mean = real_logits.float().mean(), fake_logits.float().mean()
        penalty = F.relu(real_mean - self.ema_fake).square() + F.relu(self.ema_real - fake_mean).square()
        if self.training:
            # Out of place: backward still needs the averages that the penalty was computed with.
            self.ema_real = torch.lerp(real_mean.detach(), self.ema_real, self.decay)
            self.ema_fake = torch.lerp(fake_mean.detach(), self.ema_fake, self.decay)
        return penalty


def entropy_loss(
    latents: Tensor,
    codebook: Tensor,
    *,
    temperature: float = 0.05,
    max_cells: int | None = 1024,
    chunk_size: int = 256,
    generator: torch.Generator | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Pull each latent to one code and the batch as a whole to all codes.

    With p = softmax(−‖z − e‖² / temperature): mean entropy of p, minus the entropy of the mean p. By
    concavity it is never positive; −log V means that every latent has decided and all codes are used alike.

    Memory is at most chunk_size × V numbers at a time, in both passes: chunks are recomputed in backward.

    Args:
        latents: (N, C), as they are matched with the codebook.
        codebook: (V, C); the temperature is meant for rows of norm 1.
        temperature: Of the soft assignment; 0.05 by experiment, not in the paper.
        max_cells: Use this many latents, drawn without replacement; None for all.
        chunk_size: Latents at a time.
        generator: Draws the cells; default torch's own.
        replicas: Whose latents count towards the mean p; default this process's alone.

    Returns:
        Scalar in [−log V, 0].

    Source: the entropy penalty of MAGVIT's quantizer (`entropy_loss`), here on samples and for a frozen
    codebook.
    """
    latents = sample_rows(latents, max_cells, generator)
    entropy_sum = torch.zeros((), device=latents.device)
    mean_assignment = torch.zeros(len(codebook), device=latents.device)
    for chunk in torch.split(latents, chunk_size):
        chunk_entropy, chunk_assignment = _checkpointed(_soft_assignment, chunk, codebook, temperature)
        entropy_sum = entropy_sum + chunk_entropy
        mean_assignment = mean_assignment + chunk_assignment / len(latents)
    if replicas is not None:
        mean_assignment = replicas.mean(mean_assignment)
    # xlogy is 0 at 0, where p·log p would be NaN; clamping keeps its gradient finite for codes that nothing
    # is near.
    entropy_of_mean = -torch.xlogy(mean_assignment, mean_assignment.clamp_min(1e-12)).sum()
    return entropy_sum / len(latents) - entropy_of_mean


def dynamic_weight(appearance_loss: Tensor, semantic_loss: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Weight that makes the semantic loss as large as the appearance loss: w = sg(L_app / L_sem).

    Args:
        appearance_loss: Scalar.
        semantic_loss: Scalar, at least 0.
        epsilon: Smallest divisor.

    Returns:
        Scalar without gradient.

    Source: arXiv 2306.17842, total loss.
    """
    return appearance_loss.detach() / semantic_loss.detach().clamp_min(epsilon)


def negative_squared_distances(latents: Tensor, codebook: Tensor) -> Tensor:
    """−‖z − e‖² of each pair, up to +‖z‖², a constant of each row that no softmax over the codes sees.

    Args:
        latents: (N, C).
        codebook: (V, C).

    Returns:
        float32 (N, V): 2 z·e − ‖e‖².
    """
    with torch.autocast(latents.device.type, enabled=False):
        latents, codebook = latents.float(), codebook.float()
        return torch.addmm(-codebook.square().sum(dim=1), latents, codebook.T, alpha=2.0)


def sample_rows(rows: Tensor, max_rows: int | None, generator: torch.Generator | None) -> Tensor:
    """Draw at most `max_rows` rows without replacement; all, in order, if there are no more or it is None."""
    if max_rows is None or len(rows) <= max_rows:
        return rows
    device = generator.device if generator is not None else rows.device
    chosen = torch.randperm(len(rows), generator=generator, device=device)[:max_rows]
    return rows[chosen.to(rows.device)]


def _soft_assignment(latents: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sum over the rows of the entropy of p, and of p itself (V,)."""
    log_p = (negative_squared_distances(latents, codebook) / temperature).log_softmax(dim=1)
    p = log_p.exp()
    return -(p * log_p).sum(), p.sum(dim=0)


def _checkpointed(function: Callable[..., tuple[Tensor, Tensor]], *arguments: Tensor | float) -> tuple[Tensor, Tensor]:
    """Recompute `function`, which draws nothing random, in backward instead of keeping V-wide tensors."""
    result: tuple[Tensor, Tensor] = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result

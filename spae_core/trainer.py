"""The training loop: draw, encode, quantize, decode, compare, step. The loss itself is in `objective`.

The trainer yields a `StepReport` after each step; who watches (log file, curves, progress bar) is not its business.

Source: arXiv 2306.17842, sections on losses and appendix on implementation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spae_core.adversary import Adversary
from spae_core.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint, save_checkpoint
from spae_core.errors import ModelError
from spae_core.finite import refuse_broken_weights, refuse_not_finite
from spae_core.layers import ResidualBlock
from spae_core.matched_start import match_latents_to_codebook
from spae_core.metrics import LayerCodeStatistics, codebook_perplexity
from spae_core.objective import Objective, network_autocast
from spae_core.perceptual import Lpips
from spae_core.replicas import Replicas
from spae_core.structs import Assignment
from spae_core.tokenizer import SpaeTokenizer
from spae_core.training_batches import TrainingBatch, TrainingData, draw_batch, draw_depth, step_generator
from spae_core.training_config import TrainingConfig
from spae_core.training_state import TrainingState, run_identity


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What a step did.

    Attributes:
        step: Steps done, from 1.
        losses: Each term before its weight, and `total`; nats or squared units. 0 where a step has no cells for it.
        learning_rate: Of this step.
        gradient_norm: Global norm before clipping.
        perplexity: Of each layer's codes since the last report that had them (every `log_every` steps, and after the
            first); empty otherwise.
        checkpoint: The file written after this step, if one was.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    perplexity: tuple[float, ...] = ()
    checkpoint: Path | None = None


class Trainer:
    """Trains a tokenizer's encoder, decoder and (if any) projection; words and semantic head stay as they are.

    Attributes:
        model: What is trained.
        objective: The loss.
        averaged: The same model with averaged weights, for evaluation.
        state: What its checkpoints hold.
        identity: What a checkpoint must share with this run.
        step: Steps done.
        replicas: Processes that share each batch.
        share: Positions of each batch that this one sees.
    """

    def __init__(
        self,
        model: SpaeTokenizer,
        recipe: TrainingConfig,
        data: TrainingData,
        folder: Path,
        *,
        lpips: Lpips | None = None,
        device: str = "cpu",
        replicas: Replicas | None = None,
    ) -> None:
        """Set up optimizers; resume from the newest checkpoint in `folder` if there is one.

        Args:
            model: What is trained.
            recipe: How.
            data: On what; the same for all replicas.
            folder: Of the checkpoints; the same for all replicas, of which rank 0 writes.
            lpips: For the perceptual term.
            device: Where the model goes.
            replicas: Processes that share each batch; default this one alone.

        Raises:
            ModelError: If the checkpoint belongs to another preset, codebook or recipe, or a term of the loss lacks
                what it needs.
        """
        self.recipe, self.data, self.folder, self.device = recipe, data, folder, device
        self.model = model.to(device).train()
        self.replicas = replicas or Replicas()
        self.step = 0
        self.objective = Objective(
            model,
            recipe,
            device=device,
            lpips=lpips,
            image_features=data.image_features,
            word_features=data.word_features,
            words_are_given=data.given is not None,
            replicas=self.replicas,
        )
        self.share = self.replicas.share_of(recipe.batch_size)
        if recipe.matched_start and self.replicas.rank == 0:
            batch = self._draw(0, range(recipe.batch_size))
            match_latents_to_codebook(model, batch.images, batch.first_owner)
        self.replicas.start_alike(model.parameters())
        if recipe.channels_last:
            for half in (model.encoder, model.decoder):
                half.to(memory_format=torch.channels_last)
        for block in model.modules():
            if isinstance(block, ResidualBlock):
                block.recomputes = recipe.recompute_activations
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=recipe.learning_rate, betas=recipe.adam_betas, fused=True)
        self.averaging = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
        window = recipe.window_cells * model.config.encoder.downsampling or model.config.image_size_px
        self.adversary: Adversary | None = None
        if recipe.adversarial.weight:
            self.adversary = Adversary(recipe, image_size_px=window, device=device, replicas=self.replicas)
            self.replicas.start_alike(self.adversary.discriminator.parameters())
        if recipe.compile_networks:
            model.encoder.compile()
            model.decoder.compile()
            if self.objective.lpips is not None:
                self.objective.lpips.compile()
        self.statistics = LayerCodeStatistics(model.config.pyramid.num_layers, model.codebook.codebook_size)
        self.state = TrainingState(
            model=model,
            averaging=self.averaging,
            optimizer=self.optimizer,
            adversary=self.adversary,
            statistics=self.statistics,
            replicas=self.replicas,
        )
        self.identity = run_identity(model, recipe, data)
        checkpoints = list_checkpoints(folder)
        if checkpoints:
            self.step, state = load_checkpoint(checkpoints[-1], self.identity)
            self.state.put_back(state)
        steps = self.replicas.total(torch.tensor(self.step))
        if int(steps) != self.step * self.replicas.world_size:
            raise ModelError(
                f"checkpoints in {folder}: expected the same for all workers, got step {self.step} for worker "
                f"{self.replicas.rank} and others elsewhere. Put --out where all workers can read it."
            )

    @property
    def averaged(self) -> SpaeTokenizer:
        """The model with averaged weights, in evaluation mode."""
        model = self.averaging.module
        assert isinstance(model, SpaeTokenizer)
        return model.eval()

    def steps(self) -> Iterator[StepReport]:
        """Train until the recipe's last step, yielding after each.

        Raises:
            TrainingError: If a loss, gradient or weight is NaN or infinite. The message names the last checkpoint
                that the trouble cannot come from.
        """
        recipe = self.recipe
        while self.step < recipe.num_steps:
            losses, gradient_norm, learning_rate = self._advance()
            self.step += 1
            perplexity: tuple[float, ...] = ()
            if self.step == 1 or self.step % recipe.log_every == 0:
                perplexity = self._running_perplexity()
                self.statistics.reset()
            checkpoint = None
            if self.step % recipe.checkpoint_every == 0 or self.step == recipe.num_steps:
                checkpoint = self._save()
            yield StepReport(
                step=self.step,
                losses=losses,
                learning_rate=learning_rate,
                gradient_norm=gradient_norm,
                perplexity=perplexity,
                checkpoint=checkpoint,
            )

    def _save(self) -> Path:
        refuse_broken_weights(self.model, step=self.step, folder=self.folder)
        state = self.state.collect()
        if self.replicas.rank == 0:
            save_checkpoint(self.folder, self.step, self.identity, state)
        return checkpoint_path(self.folder, self.step)

    def _draw(self, step: int, positions: range) -> TrainingBatch:
        recipe = self.recipe
        return draw_batch(
            self.data.crops,
            self.data.given,
            self.model.quantizer.subsampler,
            seed=recipe.seed,
            step=step,
            batch_size=recipe.batch_size,
            window_cells=recipe.window_cells,
            positions=positions,
        )

    def _advance(self) -> tuple[dict[str, float], float, float]:
        recipe, generator = self.recipe, step_generator(self.recipe.seed + 1, self.step)
        learning_rate = recipe.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        batch = self._draw(self.step, self.share)
        images = batch.images.to(self.device)
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        depth = draw_depth(
            self.model.config.pyramid, generator, chance=recipe.layer_dropout, windowed=bool(recipe.window_cells)
        )
        decoded, assignment = self._reconstruct(batch, images, depth)
        counts = self.adversary is not None and self.step >= recipe.adversarial.start_step
        adversary = self.adversary if counts else None
        terms = self.objective.terms(
            decoded,
            images,
            assignment,
            batch.indices,
            step=self.step,
            adversary=adversary,
            generator=generator,
        )
        logged = self._mean_terms(terms)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        self.replicas.average_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.gradient_clip_norm or float("inf"))
        self._refuse_not_finite({"gradient_norm": norm})
        self.optimizer.step()
        self.averaging.update_parameters(self.model)
        if adversary is not None:
            logged |= self._mean_terms(adversary.step(images, decoded.detach(), learning_rate, self.step))
        with torch.no_grad():
            owned = [assignment.indices[:, layer] for layer in range(assignment.indices.shape[1])]
            self.statistics.update([layer[layer >= 0].cpu() for layer in owned])
        return logged, norm.item(), learning_rate

    def _mean_terms(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Terms over all replicas; one that is not finite anywhere is refused by all, so that none waits in vain."""
        mean = self.replicas.mean(torch.stack([term.detach().float() for term in terms.values()]))
        means = dict(zip(terms, mean.unbind(), strict=True))
        self._refuse_not_finite(means)
        return {name: term.item() for name, term in means.items()}

    def _reconstruct(self, batch: TrainingBatch, images: Tensor, depth: int) -> tuple[Tensor, Assignment]:
        owner = batch.first_owner.to(self.device)
        given = None if batch.given is None else batch.given.to(self.device)
        windowed = bool(self.recipe.window_cells)
        with network_autocast(self.recipe, self.device):
            latents = self.model.encoder(images, owner).float()
        assignment = self.model.quantizer.assign(
            latents,
            num_layers=depth,
            masks=batch.masks.to(self.device) if windowed else None,
            given=given,
            exact=False,
        )
        straight_through = latents + (assignment.quantized - latents).detach()
        with network_autocast(self.recipe, self.device):
            decoded = self.model.decoder(straight_through, owner)
        return decoded.float(), assignment

    def _running_perplexity(self) -> tuple[float, ...]:
        """Perplexity of each layer since the last report; NaN where windows have not met the layer yet."""
        layers = self.replicas.total(self.statistics.counts)
        return tuple(codebook_perplexity(counts) if counts.any() else float("nan") for counts in layers)

    def _refuse_not_finite(self, terms: dict[str, Tensor]) -> None:
        refuse_not_finite(terms, step=self.step + 1, folder=self.folder)

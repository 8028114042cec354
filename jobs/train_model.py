"""`spae train --preset NAME --data INPUT… --out DIR`: a model from pictures and a codebook."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from jobs.console import ProgressDisplay, note, say

if TYPE_CHECKING:
    from jobs.training_watch import TrainingWatch
    from spae_core.replicas import Replicas
    from spae_core.tokenizer import SpaeTokenizer
    from spae_core.trainer import Trainer
    from spae_core.training_batches import TrainingData
    from spae_core.training_config import TrainingConfig

_PICTURES_WATCHED = 256


@dataclass(frozen=True, kw_only=True)
class TrainModel:
    """Train a model; run the same command again to resume from the newest checkpoint.

    OUT receives config.json, log.jsonl, training.html, curves.png and samples/ while it runs, and model/ at the end: a
    folder that --model of the other commands takes.
    """

    preset: str = "spae-smol-128"
    """Model and recipe: spae-b-128 and spae-8-128 are the paper's, spae-smol-128 is for a CPU."""

    data: tuple[str, ...]
    """Training pictures: folders, globs, files, tars, Parquet files or lists, local paths or urls; or a crop set made
    by `spae crops`."""

    image_column: str | None = None
    """Column of Parquet files and lists that holds the pictures or their uris. Default: found by name and type."""

    out: Path
    """Folder of the run."""

    codebook: Path | None = None
    """A codebook.safetensors (or its folder) made by `spae codebook`."""

    initial_model: str | None = None
    """Trained model to go on from, in place of --codebook and random weights: a name or a folder. --preset then names
    the recipe alone."""

    add_middle_blocks: tuple[int, int] | None = None
    """Residual blocks to add to the encoder and to the decoder of --initial-model. They begin as the identity, so the
    model goes on from where it is and has more to learn with."""

    num_steps: int | None = None
    """Optimizer steps. Default: the recipe's."""

    batch_size: int | None = None
    """Crops a step. Default: the recipe's."""

    learning_rate: float | None = None
    """Adam's peak learning rate. Default: the recipe's."""

    precision: Literal["float32", "bfloat16"] | None = None
    """Arithmetic of the networks. Default: the recipe's."""

    recipe: Path | None = None
    """JSON file of recipe settings to change, nested as in config.json."""

    seed: int = 0
    """Of weights, crops and batches."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is a GPU if there is one."""

    engine: Literal["local", "ray"] = "local"
    """`local` is this process; `ray` trains on several GPUs (or CPUs) through Ray Train."""

    num_workers: int = 1
    """Processes that share each batch, for --engine ray: one a GPU, or one a CPU where there is none."""

    ray_address: str | None = None
    """Of a running Ray cluster whose machines see the same files. Default: this machine alone."""

    num_threads: int | None = None
    """CPU threads of the arithmetic. Default: torch's."""

    lpips: str = "lpips"
    """File, folder or asset of LPIPS weights, for the perceptual loss."""

    semantic_encoder: Literal["conse", "clip"] = "clip"
    """What guides the semantic loss: open_clip, as in the paper, or ConSE from a classifier."""

    classifier: str = "efficientnet-lite0"
    """File, folder or asset of the classifier, for ConSE and for ranked words."""

    text_encoder: str = "minilm"
    """Folder or asset of the text encoder, for ConSE and for ranked words."""

    clip_model: str = "ViT-L-14"
    """open_clip architecture."""

    clip_pretrained: str = "openai"
    """open_clip weights: a tag it knows, or a checkpoint file."""

    def run(self) -> int:
        """Prepare, train, save.

        Raises:
            PipelineError: If the pictures cannot be read, or there are fewer GPUs or CPUs than workers.
            ModelError: If codebook, preset and checkpoint do not fit together.
            TrainingError: If a loss is not finite.
        """
        from pipelines.errors import UsageError

        if self.engine == "local":
            if self.num_workers != 1:
                raise UsageError(
                    f"--num-workers: expected 1 with --engine local, got {self.num_workers}. Add --engine ray."
                )
            self.train()
        else:
            self._train_with_ray()
        say(f"model: {self.out / 'model'}")
        say(f"page: {self.out / 'training.html'}")
        say(f"next: spae tokenize PICTURES --model {quote(str(self.out / 'model'))} --out tokens")
        return 0

    def train(self, replicas: Replicas | None = None) -> None:
        """Train in this process, alone or as one of several; see `run` for errors."""
        from jobs.training_inputs import to_images
        from jobs.training_setup import load_lpips, prepare_training
        from jobs.training_watch import TrainingWatch, evenly_spaced
        from pipelines.devices import choose_device
        from spae_core.replicas import Replicas
        from spae_core.trainer import Trainer

        replicas = replicas or Replicas()
        # Of several workers each has one GPU or one CPU, and its number is Ray's to choose.
        device = replicas.device if replicas.world_size > 1 else choose_device(self.device)
        model, recipe, data = prepare_training(self)
        if replicas.rank == 0:
            self._describe(model, recipe, data)
        trainer = Trainer(
            model,
            recipe,
            data,
            self.out / "checkpoints",
            lpips=load_lpips(self.lpips, recipe),
            device=device,
            replicas=replicas,
        )
        if replicas.rank > 0:  # rank 0 watches, writes and saves for all
            for _ in trainer.steps():
                pass
            return
        if trainer.step:
            note(f"resuming after step {trainer.step}")
        rows = evenly_spaced(data.crops, _PICTURES_WATCHED)
        given = None if data.given is None else data.given[rows]
        watch = TrainingWatch(self.out, to_images(data.crops[rows]), given, trainer.step)
        self._train(trainer, watch)
        trainer.averaged.cpu().save_pretrained(
            self.out / "model", training=self._summary(trainer, watch, len(data.crops))
        )

    def _train_with_ray(self) -> None:
        """Prepare everything here, where its files are then found by all workers."""
        from functools import partial

        from jobs.training_setup import prepare_training
        from pipelines.devices import choose_device
        from pipelines.training.ray_workers import train_on_workers
        from spae_core.replicas import Replicas

        _, recipe, _ = prepare_training(self)
        Replicas(0, self.num_workers).share_of(recipe.batch_size)  # refuses before anything starts
        train_on_workers(
            partial(_train_in_worker, self),
            num_workers=self.num_workers,
            use_gpu=choose_device(self.device) == "cuda",
            folder=self.out,
            address=self.ray_address,
        )

    def _describe(self, model: SpaeTokenizer, recipe: TrainingConfig, data: TrainingData) -> None:
        """Write config.json: everything that decided the run."""
        from pipelines.provenance import git_commit, installed_versions
        from spae_core.model_files import config_to_json

        description = {
            "config": config_to_json(model.config),
            "recipe": dataclasses.asdict(recipe),
            "codebook_sha256": model.codebook_sha256,
            "num_crops": len(data.crops),
            "crops_sha256": data.crops_sha256,
            "command": {f.name: str(getattr(self, f.name)) for f in dataclasses.fields(self)},
            "versions": installed_versions(),
            "git_commit": git_commit(),
        }
        (self.out / "config.json").write_text(json.dumps(description, indent=2) + "\n")

    def _train(self, trainer: Trainer, watch: TrainingWatch) -> None:
        from jobs.training_curves import CURVES_FILE, draw_curves
        from pipelines.evaluation.training_page import write_training_page

        recipe, started, first = trainer.recipe, time.monotonic(), trainer.step
        before = watch.rows[-1]["seconds"] if watch.rows else 0.0
        with ProgressDisplay("training", total=recipe.num_steps - first, unit="steps") as display:
            for report in trainer.steps():
                looks = report.step == 1 or report.step % recipe.evaluate_every == 0
                looks = looks or report.step == recipe.num_steps
                if report.perplexity or looks:
                    evaluation = watch.evaluate(trainer.averaged, report.step) if looks else None
                    watch.record(report, before + time.monotonic() - started, evaluation)
                if looks:
                    write_training_page(self.out, watch.rows)
                    draw_curves(watch.rows, self.out / CURVES_FILE)
                display.update(report.step - first, f"loss {report.losses['total']:.4f}")

    def _summary(self, trainer: Trainer, watch: TrainingWatch, num_crops: int) -> dict[str, Any]:
        looks = [row["evaluation"] for row in watch.rows if "evaluation" in row]
        return {
            "preset": self.preset,
            "initial_model": self.initial_model,
            "steps": trainer.step,
            "seconds": watch.rows[-1]["seconds"] if watch.rows else 0.0,
            "num_crops": num_crops,
            "train_crops": looks[-1] if looks else {},
        }


def _train_in_worker(command: TrainModel, replicas: Replicas) -> None:
    command.train(replicas)

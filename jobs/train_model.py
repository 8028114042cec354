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
    from spae_core.perceptual import Lpips
    from spae_core.replicas import Replicas
    from spae_core.tokenizer import SpaeTokenizer
    from spae_core.trainer import Trainer, TrainingData
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
    """Training pictures: folders, globs or files, local paths or urls; or a crop set made by `spae crops`."""

    out: Path
    """Folder of the run."""

    codebook: Path
    """A codebook.safetensors (or its folder) made by `spae codebook`."""

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

    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if there is one."""

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
        from jobs.training_watch import TrainingWatch, evenly_spaced
        from spae_core.replicas import Replicas
        from spae_core.trainer import Trainer

        replicas = replicas or Replicas()
        # Of several workers each has one GPU or one CPU, and its number is Ray's to choose.
        device = replicas.device if replicas.world_size > 1 else self._device()
        model, recipe, data = self._prepare()
        if replicas.rank == 0:
            self._describe(model, recipe, len(data.crops))
        trainer = Trainer(
            model,
            recipe,
            data,
            self.out / "checkpoints",
            lpips=self._lpips(recipe),
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

        from pipelines.training.ray_workers import train_on_workers
        from spae_core.replicas import Replicas

        _, recipe, _ = self._prepare()
        Replicas(0, self.num_workers).share_of(recipe.batch_size)  # refuses before anything starts
        train_on_workers(
            partial(_train_in_worker, self),
            num_workers=self.num_workers,
            use_gpu=self._device().startswith("cuda"),
            folder=self.out,
            address=self.ray_address,
        )

    def _prepare(self) -> tuple[SpaeTokenizer, TrainingConfig, TrainingData]:
        import torch

        from jobs.training_inputs import crops_of, fit_semantic_head

        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        recipe, model = self._recipe(), self._model()
        self.out.mkdir(parents=True, exist_ok=True)
        crops = crops_of(self.data, self.out, model.config.image_size_px)
        if model.ranked_words is not None:
            fit_semantic_head(model, self.classifier, self.text_encoder, self.out)
        return model, recipe, self._data(model, recipe, crops)

    def _device(self) -> str:
        import torch

        from pipelines.errors import UsageError

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError("--device: expected a GPU that torch can use, got none. Use --device cpu.")
        return self.device

    def _recipe(self) -> TrainingConfig:
        from pydantic import TypeAdapter, ValidationError

        from pipelines.errors import UsageError
        from spae_core.configs import preset
        from spae_core.training_config import RECIPES, TrainingConfig

        preset(self.preset)  # refuses unknown names with the list of those there are
        settings = dataclasses.asdict(RECIPES[self.preset]())
        if self.recipe is not None:
            try:
                _merge(settings, json.loads(self.recipe.read_text()))
            except (OSError, ValueError) as error:
                raise UsageError(f"--recipe {self.recipe}: expected a JSON object, got: {error}.") from error
        for name in ("num_steps", "batch_size", "learning_rate", "precision"):
            if getattr(self, name) is not None:
                settings[name] = getattr(self, name)
        settings["seed"] = self.seed
        try:
            return TypeAdapter(TrainingConfig).validate_python(settings)
        except ValidationError as error:
            raise UsageError(f"recipe: expected known settings in range, got: {error}.") from error

    def _model(self) -> SpaeTokenizer:
        import torch

        from spae_core.lexical_codebook import LexicalCodebook
        from spae_core.tokenizer import SpaeTokenizer

        path = self.codebook / "codebook.safetensors" if self.codebook.is_dir() else self.codebook
        codebook = LexicalCodebook.load(path)
        torch.manual_seed(self.seed)
        return SpaeTokenizer.from_preset(self.preset, codebook)

    def _lpips(self, recipe: TrainingConfig) -> Lpips | None:
        if not recipe.perceptual_weight:
            return None
        from jobs.named_folders import file_of
        from spae_core.perceptual import Lpips

        net = recipe.perceptual_net
        return Lpips.from_file(file_of(self.lpips, f"lpips_{net}.safetensors"), net=net)

    def _data(self, model: SpaeTokenizer, recipe: TrainingConfig, crops: Any) -> TrainingData:  # noqa: ANN401
        from jobs.training_inputs import rank_crops, semantic_features
        from spae_core.trainer import TrainingData

        given = None
        if model.ranked_words is not None:
            given = model.place_words(rank_crops(model, crops, self.out))
        if not recipe.semantic.weight:
            return TrainingData(crops=crops, given=given)
        image_features, word_features = semantic_features(self._semantic_encoder(), model.codebook.words, crops)
        return TrainingData(crops=crops, given=given, image_features=image_features, word_features=word_features)

    def _semantic_encoder(self) -> Any:  # noqa: ANN401 - either implementation of one interface
        from jobs.named_folders import file_of, folder_or_asset
        from jobs.training_inputs import CLASSIFIER_PATTERN

        if self.semantic_encoder == "conse":
            from spae_core.conse_encoder import ConseSemanticEncoder

            return ConseSemanticEncoder.from_files(
                file_of(self.classifier, CLASSIFIER_PATTERN), folder_or_asset(self.text_encoder)
            )
        from spae_core.semantic_encoder import OpenClipSemanticEncoder

        return OpenClipSemanticEncoder.create(self.clip_model, self.clip_pretrained)

    def _describe(self, model: SpaeTokenizer, recipe: TrainingConfig, num_crops: int) -> None:
        """Write config.json: everything that decided the run."""
        from pipelines.provenance import git_commit, installed_versions
        from spae_core.model_files import config_to_json

        description = {
            "config": config_to_json(model.config),
            "recipe": dataclasses.asdict(recipe),
            "codebook_sha256": model.codebook_sha256,
            "num_crops": num_crops,
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
            "steps": trainer.step,
            "seconds": watch.rows[-1]["seconds"] if watch.rows else 0.0,
            "num_crops": num_crops,
            "train_crops": looks[-1] if looks else {},
        }


def _train_in_worker(command: TrainModel, replicas: Replicas) -> None:
    command.train(replicas)


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change `settings` in place; nested objects are merged, not replaced."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(settings.get(name), dict):
            _merge(settings[name], value)
        else:
            settings[name] = value

"""`spae train --preset NAME --data INPUT… --out DIR`: a model from pictures and a codebook."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.console import ProgressDisplay, note, say

if TYPE_CHECKING:
    from jobs.training_watch import TrainingWatch
    from spae_core.perceptual import Lpips
    from spae_core.tokenizer import SpaeTokenizer
    from spae_core.trainer import Trainer, TrainingData
    from spae_core.training_config import TrainingConfig

_PICTURES_WATCHED = 256


@dataclass(frozen=True, kw_only=True)
class TrainModel:
    """Train a model; run the same command again to resume from the newest checkpoint.

    OUT receives config.json, log.jsonl, curves.png and samples/ while it runs, and model/ at the end: a folder that
    --model of the other commands takes.
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
            PipelineError: If the pictures cannot be read.
            ModelError: If codebook, preset and checkpoint do not fit together.
            TrainingError: If a loss is not finite.
        """
        import torch

        from jobs.training_inputs import crops_of, fit_semantic_head, to_images
        from jobs.training_watch import TrainingWatch, evenly_spaced
        from spae_core.trainer import Trainer

        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        device = self._device()
        recipe = self._recipe()
        model = self._model()
        crops = crops_of(self.data, self.out, model.config.image_size_px)
        if model.ranked_words is not None:
            fit_semantic_head(model, self.classifier, self.text_encoder, self.out)
        data = self._data(model, recipe, crops)
        self._describe(model, recipe, len(crops))
        trainer = Trainer(model, recipe, data, self.out / "checkpoints", lpips=self._lpips(recipe), device=device)
        if trainer.step:
            note(f"resuming after step {trainer.step}")
        rows = evenly_spaced(crops, _PICTURES_WATCHED)
        watch = TrainingWatch(
            self.out,
            to_images(crops[rows]),
            None if data.given is None else data.given[rows],
            trainer.step,
        )
        self._train(trainer, watch)
        folder = self.out / "model"
        trainer.averaged.cpu().save_pretrained(folder, training=self._summary(trainer, watch, len(crops)))
        say(f"model: {folder}")
        say(f"next: spae tokenize PICTURES --model {folder} --out tokens")
        return 0

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
                    watch.draw_curves()
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


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change `settings` in place; nested objects are merged, not replaced."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(settings.get(name), dict):
            _merge(settings[name], value)
        else:
            settings[name] = value

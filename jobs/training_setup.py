"""What a `spae train` command asks for, made: its recipe, its model, and what it is trained on."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.train_model import TrainModel
    from spae_core.perceptual import Lpips
    from spae_core.semantic_encoder import SemanticEncoder
    from spae_core.tokenizer import SpaeTokenizer
    from spae_core.training_batches import TrainingData
    from spae_core.training_config import TrainingConfig


def prepare_training(command: TrainModel) -> tuple[SpaeTokenizer, TrainingConfig, TrainingData]:
    """Model, recipe and data of a run; what takes long is kept in its folder.

    Raises:
        PipelineError: If the pictures cannot be read, or settings do not fit together.
        ModelError: If model and codebook do not.
    """
    import torch

    from jobs.training_inputs import crops_of, fit_semantic_head

    if command.num_threads:
        torch.set_num_threads(command.num_threads)
    recipe, model = _recipe(command), _model(command)
    command.out.mkdir(parents=True, exist_ok=True)
    data = crops_of(command.data, command.out, model.config.image_size_px, image_column=command.image_column)
    if model.ranked_words is not None and command.initial_model is None:
        fit_semantic_head(model, command.classifier, command.text_encoder, command.out)
    return model, recipe, _with_words(command, model, recipe, data)


def load_lpips(source: str, recipe: TrainingConfig) -> Lpips | None:
    """LPIPS from a file, folder or asset; None for a recipe without it."""
    if not recipe.perceptual_weight:
        return None
    from jobs.named_folders import file_of
    from spae_core.perceptual import Lpips

    net = recipe.perceptual_net
    return Lpips.from_file(file_of(source, f"lpips_{net}.safetensors"), net=net)


def _recipe(command: TrainModel) -> TrainingConfig:
    from pydantic import TypeAdapter, ValidationError

    from pipelines.errors import UsageError
    from spae_core.presets import preset
    from spae_core.training_config import RECIPES, TrainingConfig

    preset(command.preset)  # refuses unknown names with the list of those there are
    settings = dataclasses.asdict(RECIPES[command.preset]())
    if command.recipe is not None:
        try:
            _merge(settings, json.loads(command.recipe.read_text()))
        except (OSError, ValueError) as error:
            raise UsageError(f"--recipe {command.recipe}: expected a JSON object, got: {error}.") from error
    for name in ("num_steps", "batch_size", "learning_rate", "precision"):
        if getattr(command, name) is not None:
            settings[name] = getattr(command, name)
    settings["seed"] = command.seed
    if command.initial_model is not None:
        settings["matched_start"] = False  # it would undo what the model has learned
    try:
        return TypeAdapter(TrainingConfig).validate_python(settings)
    except ValidationError as error:
        raise UsageError(f"recipe: expected known settings in range, got: {error}.") from error


def _model(command: TrainModel) -> SpaeTokenizer:
    import torch

    from pipelines.errors import UsageError
    from spae_core.deepening import deepen
    from spae_core.lexical_codebook import LexicalCodebook
    from spae_core.tokenizer import SpaeTokenizer

    if (command.codebook is None) == (command.initial_model is None):
        given = "neither" if command.codebook is None else "both"
        raise UsageError(
            f"spae train: expected one of --codebook and --initial-model, got {given}. "
            "A model has its codebook with it; a new one needs --codebook."
        )
    if command.add_middle_blocks is not None and command.initial_model is None:
        raise UsageError(
            "--add-middle-blocks: expected --initial-model beside it, got --codebook. A new model takes its depth from "
            "its preset."
        )
    torch.manual_seed(command.seed)
    if command.codebook is None:
        assert command.initial_model is not None
        model = SpaeTokenizer.from_pretrained(command.initial_model)
        if command.add_middle_blocks is None:
            return model
        encoder_blocks, decoder_blocks = command.add_middle_blocks
        return deepen(model, encoder_blocks=encoder_blocks, decoder_blocks=decoder_blocks)
    path = command.codebook / "codebook.safetensors" if command.codebook.is_dir() else command.codebook
    return SpaeTokenizer.from_preset(command.preset, LexicalCodebook.load(path))


def _with_words(command: TrainModel, model: SpaeTokenizer, recipe: TrainingConfig, data: TrainingData) -> TrainingData:
    """The crops with what model and recipe need to know of their meaning."""
    from jobs.training_inputs import rank_crops, semantic_features

    if model.ranked_words is not None:
        given = model.place_words(rank_crops(model, data, command.out))
        data = dataclasses.replace(data, given=given)
    if not recipe.semantic.weight:
        return data
    images, words = semantic_features(_semantic_encoder(command), model.codebook.words, data.crops)
    return dataclasses.replace(data, image_features=images, word_features=words)


def _semantic_encoder(command: TrainModel) -> SemanticEncoder:
    from jobs.named_folders import file_of, folder_or_asset
    from jobs.training_inputs import CLASSIFIER_PATTERN

    if command.semantic_encoder == "conse":
        from spae_core.conse_encoder import ConseSemanticEncoder

        return ConseSemanticEncoder.from_files(
            file_of(command.classifier, CLASSIFIER_PATTERN), folder_or_asset(command.text_encoder)
        )
    from spae_core.semantic_encoder import OpenClipSemanticEncoder

    return OpenClipSemanticEncoder.create(command.clip_model, command.clip_pretrained)


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change `settings` in place; nested objects are merged, not replaced."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(settings.get(name), dict):
            _merge(settings[name], value)
        else:
            settings[name] = value

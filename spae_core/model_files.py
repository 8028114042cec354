"""A model on disk: `config.json`, `model.safetensors`, `codebook.safetensors`, each bound to the others by sha256.

Matrices and kernels are stored as float16, vectors (norms, biases, running statistics) as float32.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from spae_core.configs import SpaeConfig
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook

FORMAT = "spae-model/1"
PRETRAINED_FOLDER = Path(__file__).parent / "pretrained"
CONFIG_FILE, WEIGHTS_FILE, CODEBOOK_FILE = "config.json", "model.safetensors", "codebook.safetensors"
_CONFIG_TYPE = TypeAdapter(SpaeConfig)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a model folder holds.

    Attributes:
        config: The model's settings.
        weights: float32 tensors by name.
        codebook: The words.
        model_sha256: Of settings and weights as they are stored. It stays the same when later versions know more
            settings.
    """

    config: SpaeConfig
    weights: dict[str, Tensor]
    codebook: LexicalCodebook
    model_sha256: str


@dataclass(frozen=True, slots=True)
class _Description:
    """What `config.json` holds; `training` is for people."""

    format: str
    config: dict[str, Any]
    model_sha256: str
    codebook_sha256: str
    files: dict[str, str]


_DESCRIPTION_TYPE = TypeAdapter(_Description)


def config_to_json(config: SpaeConfig) -> dict[str, Any]:
    """Plain values of a config, as they go into `config.json`."""
    plain: dict[str, Any] = _CONFIG_TYPE.dump_python(config, mode="json")
    return plain


def config_from_json(plain: object) -> SpaeConfig:
    """Read what `config_to_json` wrote.

    Raises:
        ModelError: If a value is absent, unknown or out of range.
    """
    try:
        return _CONFIG_TYPE.validate_python(plain)
    except ValidationError as error:
        raise ModelError(f"model config: expected the settings of a SPAE model, got: {error}.") from error


def serialize_weights(weights: Mapping[str, Tensor]) -> bytes:
    """Weights as the bytes of a safetensors file; equal weights give equal bytes."""
    stored = {
        name: (tensor.half() if tensor.ndim > 1 and tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in weights.items()
    }
    return safetensors.torch.save(stored)


def hash_model(config: SpaeConfig, weights: bytes) -> str:
    """sha256 over settings and stored weights: the identity recorded in datasets."""
    return _hash_stored(config_to_json(config), weights)


def _hash_stored(plain_config: Mapping[str, Any], weights: bytes) -> str:
    settings = json.dumps(plain_config, sort_keys=True).encode()
    return hashlib.sha256(settings + b"\0" + hashlib.sha256(weights).digest()).hexdigest()


def pretrained_names() -> list[str]:
    """Names of the models that come with this package."""
    return sorted(path.parent.name for path in PRETRAINED_FOLDER.glob(f"*/{CONFIG_FILE}"))


def find_model(name_or_path: str | Path) -> Path:
    """Folder of a model given by name or path.

    Raises:
        ModelError: If it is neither; the message lists the names there are.
    """
    for folder in (Path(name_or_path), PRETRAINED_FOLDER / str(name_or_path)):
        if (folder / CONFIG_FILE).is_file():
            return folder
    known = ", ".join(pretrained_names()) or "none"
    raise ModelError(
        f"model: expected a folder with {CONFIG_FILE} or one of the models that come along ({known}), "
        f"got '{name_or_path}'. Train one with `spae train`."
    )


def save_model(
    folder: str | Path,
    config: SpaeConfig,
    weights: Mapping[str, Tensor],
    codebook: LexicalCodebook,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder.

    Args:
        folder: Made if absent.
        config: Settings.
        weights: Tensors by name.
        codebook: Words.
        training: How it came to be (data, steps, results), plain values for people to read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    serialized = serialize_weights(weights)
    (folder / WEIGHTS_FILE).write_bytes(serialized)
    codebook.save(folder / CODEBOOK_FILE)
    description = {
        "format": FORMAT,
        "config": config_to_json(config),
        "model_sha256": hash_model(config, serialized),
        "codebook_sha256": codebook.sha256,
        "files": {name: _sha256(folder / name) for name in (WEIGHTS_FILE, CODEBOOK_FILE)},
        "training": dict(training or {}),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_model(name_or_path: str | Path) -> ModelFiles:
    """Read a model folder and check that its parts are whole and belong together.

    Raises:
        ModelError: If something is absent, damaged or from another model; the message names the file and both values.
    """
    folder = find_model(name_or_path)
    description = _read_description(folder / CONFIG_FILE)
    for name in (WEIGHTS_FILE, CODEBOOK_FILE):
        path, expected = folder / name, description.files.get(name)
        if not path.is_file():
            raise ModelError(f"model {folder}: expected {name} beside {CONFIG_FILE}, got no such file. Copy it again.")
        found = _sha256(path)
        if found != expected:
            raise ModelError(f"{path}: expected sha256 {expected}, got {found}. Copy the model again.")
    config = config_from_json(description.config)
    codebook = LexicalCodebook.load(folder / CODEBOOK_FILE)
    if codebook.sha256 != description.codebook_sha256:
        raise ModelError(
            f"codebook of {folder}: expected sha256 {description.codebook_sha256}, got {codebook.sha256}. "
            "Use the codebook the model was trained with."
        )
    serialized = (folder / WEIGHTS_FILE).read_bytes()
    try:
        weights = safetensors.torch.load(serialized)
    except SafetensorError as error:
        raise ModelError(
            f"{folder / WEIGHTS_FILE}: expected a safetensors file, got: {error}. Copy the model again."
        ) from error
    # The settings as they stand in the file: a setting that later versions add does not make it another model.
    model_sha256 = _hash_stored(description.config, serialized)
    if model_sha256 != description.model_sha256:
        raise ModelError(
            f"{folder / CONFIG_FILE}: expected settings and weights of model_sha256 {description.model_sha256}, "
            f"got {model_sha256}. Copy the model again; settings of a trained model cannot be changed."
        )
    wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    return ModelFiles(config=config, weights=wide, codebook=codebook, model_sha256=model_sha256)


def _read_description(path: Path) -> _Description:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: expected JSON, got: {error}. Copy the model again.") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        found = plain.get("format") if isinstance(plain, dict) else type(plain).__name__
        raise ModelError(f"{path}: expected format {FORMAT}, got {found}. Save the model with this version.")
    try:
        return _DESCRIPTION_TYPE.validate_python(plain)
    except ValidationError as error:
        raise ModelError(f"{path}: expected the description of a model, got: {error}. Copy the model again.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

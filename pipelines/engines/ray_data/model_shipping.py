"""Bring a model's folder to workers that do not share this machine's disk: once into the object store of each node."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.stages.stage import Stage
from pipelines.stages.tokenize_images import TokenizeImages


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippedModel:
    """A stage, and the files of its model in Ray's object store.

    Attributes:
        stage: The stage, with `model` as the driver knows it.
        files: Reference to file name -> content, or None if the workers find the model themselves.
    """

    stage: Stage
    files: Any = None

    def unpack(self) -> Stage:
        """The stage as this worker can set it up; every worker of a machine writes the same files."""
        if self.files is None or not isinstance(self.stage, TokenizeImages):
            return self.stage
        import ray

        files: Mapping[str, bytes] = ray.get(self.files)
        folder = Path(tempfile.gettempdir()) / f"spae-model-{_hash(files)}"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            if not (folder / name).exists() or (folder / name).read_bytes() != content:
                with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                    file.write(content)
                Path(file.name).replace(folder / name)
        return dataclasses.replace(self.stage, model=str(folder))


def ship_model(stage: Stage) -> ShippedModel:
    """Put the model's files into the object store; a stage that names no model goes as it is.

    Raises:
        ModelError: If there is no such model here.
    """
    if not isinstance(stage, TokenizeImages):
        return ShippedModel(stage=stage)
    import ray

    from spae_core.model_files import find_model

    folder = find_model(stage.model)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    return ShippedModel(stage=stage, files=ray.put(files))


def _hash(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]

"""`config.json` of a run: everything that determines its bytes, and the claim on its place.

The file is created only if absent, before any work. A later command in the same place must have equal
`settings` (models by hash, inputs by the plan's hash); it then resumes, and otherwise it is refused with the
differences spelled out. `versions` must be equal too as long as something is left to do. `command` is how the
run was started; it may differ.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from schemas.versions import RUN_CONFIG, SchemaError, check_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """What determines the bytes of `data/`, with `versions`.

    Attributes:
        model_sha256: Hash of the model's weights.
        codebook_sha256: Hash of its codebook.
        codebook_size: Entries of the codebook.
        layer_grids: (height, width) in cells of each layer written.
        image_size_px: Side of the model's square input.
        preprocessing: How bytes become that input.
        decoder: Libraries that decode, with versions.
        batch_size: Pictures the model always sees at once; the last batch is padded.
        device: `cpu` or `cuda`: their sums differ in the last digits, so their tokens may.
        num_shards: Shards of the plan.
        num_inputs: Inputs of the plan.
        plan_sha256: Hash of the plan.
    """

    model_sha256: str
    codebook_sha256: str
    codebook_size: int
    layer_grids: tuple[tuple[int, int], ...]
    image_size_px: int
    preprocessing: str
    decoder: str
    batch_size: int
    device: str
    num_shards: int
    num_inputs: int
    plan_sha256: str

    @property
    def num_layers(self) -> int:
        """Layers written."""
        return len(self.layer_grids)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Content of `config.json`.

    Attributes:
        settings: What a resuming command must share.
        model: Name of the model, or the absolute folder it was loaded from.
        command: The command's own arguments, as `spae tokenize --config` takes them back.
        versions: Python and libraries that can change the bytes.
        git_commit: Commit of the code, or None if it was installed.
        seeds: Seeds of random numbers; tokenizing draws none.
    """

    settings: RunSettings
    model: str
    command: Mapping[str, Any]
    versions: Mapping[str, str]
    git_commit: str | None
    seeds: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """The config as indented JSON."""
        return json.dumps({"schema": RUN_CONFIG, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "RunConfig":
        """Read a config back.

        Args:
            text: Content of `config.json`.
            where: Its path or url, for messages.

        Raises:
            SchemaError: If it is no config of a run, e.g. a model's `config.json`.
        """
        try:
            values = json.loads(text)
            check_schema(values.pop("schema", None), RUN_CONFIG, where=where)
            settings = values.pop("settings")
            settings["layer_grids"] = tuple((int(h), int(w)) for h, w in settings["layer_grids"])
            return cls(settings=RunSettings(**settings), **values)
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            raise SchemaError(
                f"config {where}: expected JSON of schema {RUN_CONFIG}, got something else ({error}). "
                "Give the folder of a run."
            ) from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, one line each: `batch_size: 16 there, 32 now`."""
    lines = []
    for key in sorted({*old, *new}):
        there, now = old.get(key), new.get(key)
        if there != now:
            lines.append(f"{key}: {_short(there)} there, {_short(now)} now")
    return lines


def _short(value: object) -> str:
    """A value as a person compares it: hashes by their first digits."""
    text = str(value)
    is_hash = len(text) == 64 and all(character in "0123456789abcdef" for character in text)
    return text[:12] + "…" if is_hash else text

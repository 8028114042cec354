"""A tokenize command as a run's config.json keeps it, and taken back from there."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.tokenize_corpus import TokenizeCorpus

#: Of one call alone, not of the run; engine options may hold credentials.
_NOT_KEPT = ("config", "extend", "metrics_file", "engine_options")


def to_arguments(command: TokenizeCorpus) -> dict[str, Any]:
    """Its flags as plain values that mean the same from whatever folder: local paths made absolute."""
    arguments = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    for name in _NOT_KEPT:
        del arguments[name]
    paths = (text if "://" in text else os.path.abspath(os.path.expanduser(text)) for text in command.inputs)
    model = os.path.abspath(command.model) if os.path.isdir(command.model) else command.model
    return {**arguments, "model": model, "inputs": list(paths)}


def complete_from(command: TokenizeCorpus, path: Path) -> TokenizeCorpus:
    """The command with everything it leaves at its default taken from a run's config, but for where it writes.

    Raises:
        UsageError: If the file cannot be read.
        SchemaError: If it is no run's config.
    """
    from pipelines.errors import UsageError
    from pipelines.runs.run_config import RunConfig

    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(
            f"--config {path}: expected a readable file, got: {error.strerror}. Check the path."
        ) from error
    stored = RunConfig.from_json(text, where=str(path)).command
    defaults = {field.name: field.default for field in dataclasses.fields(command)}
    taken: dict[str, Any] = {}
    for name, value in stored.items():
        if name in defaults and name != "out" and getattr(command, name) == defaults[name]:
            taken[name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(command, **taken, config=None)

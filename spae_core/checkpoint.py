"""Training checkpoints: whole or absent, bound to their preset and codebook, resumed bit for bit on a CPU.

A checkpoint holds weights, EMA, optimizers and the step; what is random is drawn from (seed, step), so there is no
random state to keep.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from spae_core.errors import ModelError

_NAME = re.compile(r"checkpoint-(\d{8})\.pt")


def checkpoint_path(folder: Path, step: int) -> Path:
    """File of the checkpoint taken after `step` steps."""
    return folder / f"checkpoint-{step:08d}.pt"


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name))


def save_checkpoint(folder: Path, step: int, identity: dict[str, Any], state: dict[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint and drop all but the newest `keep`.

    Args:
        folder: Of the run; made if absent.
        step: Steps done.
        identity: What a run must share with the checkpoint to resume it (preset, codebook, recipe); plain values.
        state: State dicts.
        keep: Checkpoints kept.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, step)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"step": step, "identity": json.dumps(identity, sort_keys=True), "state": state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path, identity: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Read a checkpoint.

    Returns:
        Steps done, and the state dicts.

    Raises:
        ModelError: If the file is damaged, or the checkpoint is of another preset, codebook or recipe; the message
            names each value that differs, both ways.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        step, state = int(content["step"]), content["state"]
        found = json.loads(content["identity"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise ModelError(
            f"checkpoint {path}: expected a whole checkpoint, got: {error}. Delete it to resume from the one before."
        ) from error
    wanted = json.loads(json.dumps(identity))
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if differing:
        details = "; ".join(f"{key}: expected {wanted.get(key)}, got {found.get(key)}" for key in differing)
        raise ModelError(
            f"checkpoint {path}: it belongs to another run. {details}. Train into another folder, or with its settings."
        )
    return step, state

"""Stops a training whose numbers are no longer numbers, and says which checkpoint is still good."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from spae_core.checkpoint import checkpoint_path, list_checkpoints
from spae_core.errors import TrainingError


def refuse_not_finite(terms: dict[str, Tensor], *, step: int, folder: Path) -> None:
    """Stop if a loss or norm is NaN or infinite.

    Args:
        terms: Scalars by name.
        step: That they are of, from 1.
        folder: Of the checkpoints.

    Raises:
        TrainingError: The message names the terms, and the last checkpoint that the trouble cannot come from.
    """
    bad = [name for name, term in terms.items() if not torch.isfinite(term)]
    if bad:
        raise _error(f"expected finite losses, got NaN or infinity in {', '.join(bad)}", step, folder)


def refuse_broken_weights(model: nn.Module, *, step: int, folder: Path) -> None:
    """Stop if a weight overflowed in a step whose losses were finite; such a state must not become a checkpoint.

    Args:
        model: After the step.
        step: Steps done.
        folder: Of the checkpoints.

    Raises:
        TrainingError: The message names the first weights, and the last good checkpoint.
    """
    bad = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise _error(f"expected finite weights, got NaN or infinity in {', '.join(bad[:3])}", step, folder)


def _error(what: str, step: int, folder: Path) -> TrainingError:
    # The checkpoint that this very step began with is no good one: its weights gave what is not finite.
    began_with = checkpoint_path(folder, step - 1)
    good = [path for path in list_checkpoints(folder) if path < began_with]
    suspect = f" Delete {began_with}: this step began with it." if began_with.is_file() else ""
    return TrainingError(
        f"training: {what} at step {step}. Last good checkpoint: {good[-1] if good else 'none yet'}.{suspect} "
        "Lower the learning rate, or train in float32."
    )

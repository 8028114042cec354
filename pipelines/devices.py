"""Where a model runs, how many pictures it takes at once there, and how many cores there are to feed it."""

import os
from typing import Literal

from pipelines.errors import UsageError

#: On a CPU small batches waste least on padding; a GPU needs larger ones to be busy. The shape decides the last
#: digits of sums, so it is small enough to fit any device; beyond that a GPU takes several such batches.
_BATCH_SIZES = {"cpu": 8, "cuda": 32}
_BATCHES_PER_BLOCK = {"cpu": 1, "cuda": 4}


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """Resolve `auto` to `cuda` where torch can use a GPU, else `cpu`.

    Raises:
        UsageError: If a GPU is wanted and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise UsageError("--device: expected a GPU that torch can use, got none. Use --device cpu.")
    if wanted == "auto":
        return "cuda" if has_gpu else "cpu"
    return wanted


def default_batch_size(device: str) -> int:
    """Pictures at once if the user names no number."""
    return _BATCH_SIZES[device]


def default_batches_per_block(device: str) -> int:
    """Batches that are on the device together; changes no token."""
    return _BATCHES_PER_BLOCK[device]


def num_cpu_cores() -> int:
    """Cores this process may use; a container may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

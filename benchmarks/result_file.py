"""The JSON that every benchmark writes on request: what was measured, on which machine, with which versions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def installed(*packages: str) -> dict[str, str]:
    """Package -> its version."""
    return {name: metadata.version(name) for name in packages}


def write_result(
    path: Path,
    name: str,
    *,
    versions: Mapping[str, str],
    ours: Mapping[str, Any],
    peers: Sequence[Mapping[str, Any]] = (),
    equal: bool = False,
    device: str | None = None,
) -> None:
    """Write what a benchmark found.

    Args:
        path: File to write.
        name: Of the benchmark.
        versions: Of what the numbers depend on.
        ours: Our numbers.
        peers: Theirs, one each.
        equal: Whether all results were checked and found equal.
        device: What the arithmetic ran on, if that was a choice.
    """
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    result = {
        "name": name,
        "machine": f"{machine}, {device}" if device else machine,
        "versions": dict(versions),
        "ours": dict(ours),
        "peers": list(peers),
        "equal": equal,
    }
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")

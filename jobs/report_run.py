"""`spae report RUN`: one HTML page that shows what a run made of its pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.console import say

#: Name of the page in the folder of its run.
PAGE = "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRun:
    """Write one self-contained HTML page: samples, their word pyramids, and the run in numbers.

    The page needs no other file and no network. With a model of 128 px it takes 60 to 120 kB a sample, so
    about 2 MB for the 24 it shows by default.
    """

    location: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder or url of a run, as `spae tokenize` wrote it."""

    out: str | None = None
    """File to write. Default: report.html in the run."""

    num_samples: int = 24
    """Pictures to show, drawn evenly over the run; the same run gives the same ones."""

    samples: tuple[str, ...] = ()
    """Show the pictures with these sample_ids instead."""

    layers: str = ""
    """How many layers to decode the pictures from, e.g. 5,6. Default: the last two that fill all cells."""

    model: str | None = None
    """Name or folder of the model, where it has moved since the run."""

    def run(self) -> int:
        """Write the page and print its path.

        Returns:
            0: the page is written.

        Raises:
            PipelineError: With the exit code of each case; see `pipelines.evaluation.report.build_report`.
            ModelError: If `model` is given and is not the one that wrote the run.
        """
        from pipelines.errors import UsageError
        from pipelines.evaluation.report import build_report
        from pipelines.storage import open_storage

        if self.num_samples < 0:
            raise UsageError(f"--num-samples: expected 0 or more, got {self.num_samples}. Give another number.")
        page = build_report(
            self.location,
            num_samples=self.num_samples,
            layers=self._layer_numbers(),
            sample_ids=self.samples,
            model=self.model,
        ).encode()
        target = self.out or f"{self.location.rstrip('/')}/{PAGE}"
        if "://" in target:
            folder, _, name = target.rpartition("/")
            storage = open_storage(folder)
            storage.replace(name, page)
            say(storage.url(name))
        else:
            say(str(_write(Path(target).expanduser(), page)))
        return 0

    def _layer_numbers(self) -> tuple[int, ...]:
        from pipelines.errors import UsageError

        try:
            return tuple(int(number) for number in self.layers.split(",")) if self.layers else ()
        except ValueError as error:
            raise UsageError(
                f"--layers: expected numbers such as 5,6, got '{self.layers}'. Put commas between them."
            ) from error


def _write(path: Path, page: bytes) -> Path:
    """Write a local file, whole or not at all, and nothing else beside it."""
    from pipelines.errors import UsageError

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(page)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(
            f"--out {path}: expected a file that can be written, got: {error.strerror}. Choose another one."
        ) from error
    return path.absolute()

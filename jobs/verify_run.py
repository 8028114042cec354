"""`spae verify RUN`: check a finished run, file by file and id by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.console import say


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyRun:
    """Check that every planned picture is there once, with whole files and tokens of the right codebook."""

    location: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder or url of a run, as `spae tokenize` wrote it."""

    def run(self) -> int:
        """Read everything and list what is wrong.

        Returns:
            0 if nothing is, 3 otherwise.
        """
        from pipelines.errors import BadDataError
        from pipelines.runs.verify import verify_run
        from pipelines.storage import open_storage

        storage = open_storage(self.location)
        report = verify_run(storage)
        for problem in report.problems:
            say(problem)
        if report.problems:
            say(f"{storage.url()}: {len(report.problems)} problems")
            return BadDataError.exit_code
        say(
            f"{storage.url()}: right. {report.num_planned} planned = {report.num_ok} tokenized "
            f"+ {report.num_quarantined} quarantined, in {report.num_shards} shards"
        )
        return 0

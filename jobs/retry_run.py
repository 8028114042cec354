"""`spae retry RUN`: the pictures of the quarantine once more, into files of their own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jobs.console import note, say
from jobs.run_to_the_end import summarize
from jobs.tokenize_corpus import TokenizeCorpus

if TYPE_CHECKING:
    from pipelines.storage import Storage


@dataclass(frozen=True, kw_only=True)
class RetryRun:
    """Try the pictures in quarantine again, with the run's own settings.

    Those that can be read now go into a new file of their shard, the others back into the quarantine with their new
    reason and one attempt more. A retry that was stopped goes on when the command is repeated.
    """

    location: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder or url of a finished run, as `spae tokenize` wrote it."""

    reason: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only pictures with this `error_class`, or `stage/error_class`; may be given several times. Default: all."""

    num_threads: int | None = None
    """Threads that read and decode. Default: as the run was started."""

    max_quarantined_fraction: float | None = None
    """Error budget, of all pictures of the run. Default: as the run was started."""

    metrics_file: Path | None = None
    """Text file for Prometheus, rewritten every few seconds."""

    def run(self) -> int:
        """Plan the retry or find the one that was begun, do it, write the manifest anew.

        Returns:
            0: done, or nothing to do.

        Raises:
            PipelineError: With the exit code of each case; see `pipelines.errors`.
            ModelError: If the run's model is not where it was.
        """
        from pipelines.errors import BadDataError
        from pipelines.runs.claim import open_claimed, read_config
        from pipelines.runs.manifest import is_finished, refuse_damaged_containers
        from pipelines.runs.plan import PlanSummary
        from pipelines.runs.retry import plan_retry
        from pipelines.runs.rounds import read_rounds
        from pipelines.storage import open_storage

        storage = open_storage(self.location)
        stored = read_config(storage)
        command = self._command(stored.command)
        settings = stored.settings
        described = command.describe(
            PlanSummary(
                sha256=settings.plan_sha256,
                num_inputs=settings.num_inputs,
                num_shards=settings.num_shards,
                num_doubles=0,
            ),
            command.engine_choice().device(command.device),
        )
        claimed = open_claimed(storage, described.config)
        work = dataclasses.replace(command.to_the_end(claimed, described.decode), title="retrying")
        rounds = read_rounds(storage)
        if self._is_under_way(storage) or (rounds and not is_finished(storage, rounds)):
            note("going on with the retry that was begun")
            try:
                manifest = work.run()
                summarize(manifest, storage.url())
                refuse_damaged_containers(manifest)
                return 0
            except BadDataError as error:  # It is through, and too much is still bad: once more, then.
                if self._is_under_way(storage):
                    raise
                note(str(error))
        one = plan_retry(claimed.plan, rounds, error_classes=self.reason)
        if one is None:
            say(f"nothing to do: no picture in quarantine in {storage.url()}")
            return 0
        note(f"retry {one.number}: {one.num_rows} pictures of the quarantine")
        manifest = work.run()
        num_left = sum(manifest.quarantined_by_reason.values())
        say(f"retried {one.num_rows} pictures; {num_left} are in quarantine now")
        summarize(manifest, storage.url())
        refuse_damaged_containers(manifest)
        return 0

    def _command(self, stored: Any) -> TokenizeCorpus:  # noqa: ANN401  (a mapping as JSON has it)
        """The command that the run was started with, on this place, with what is given here instead."""
        names = {field.name for field in dataclasses.fields(TokenizeCorpus)}
        taken: dict[str, Any] = {name: value for name, value in stored.items() if name in names}
        taken = {name: tuple(value) if isinstance(value, list) else value for name, value in taken.items()}
        for name in ("num_threads", "max_quarantined_fraction"):
            if getattr(self, name) is not None:
                taken[name] = getattr(self, name)
        command = TokenizeCorpus(**{**taken, "out": self.location, "metrics_file": self.metrics_file})
        command.check()
        return command

    def _is_under_way(self, storage: Storage) -> bool:
        """Whether a retry was begun and has shards left.

        Raises:
            UsageError: If the run itself, or an extension, has shards left: that comes first.
        """
        from pipelines.errors import UsageError
        from pipelines.runs.claim import read_config
        from pipelines.runs.commit import committed_shards
        from pipelines.runs.rounds import missing_shards, read_rounds

        rounds = read_rounds(storage)
        num_shards = read_config(storage).settings.num_shards
        num_done = sum(shard < num_shards for shard in committed_shards(storage))
        if num_done < num_shards:
            raise UsageError(
                f"run {storage.url()}: expected all {num_shards} shards committed, got {num_done}. "
                "Finish it with `spae tokenize` first."
            )
        if not rounds or not missing_shards(storage, rounds[-1]):
            return False
        if rounds[-1].kind == "extend":
            raise UsageError(
                f"run {storage.url()}: expected a finished run, got one whose extension {rounds[-1].number} is open. "
                "Repeat `spae tokenize … --extend` first."
            )
        return True

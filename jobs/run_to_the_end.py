"""Does what is left of a run with an engine, shows how far it is, and closes it: for `tokenize` and for `retry`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from jobs.console import ProgressDisplay, say

if TYPE_CHECKING:
    from pipelines.engine import Engine, EngineReport, Progress
    from pipelines.metrics_file import MetricsFile
    from pipelines.runs.claim import ClaimedRun
    from pipelines.storage import Storage
    from pipelines.work_steps import WorkStep
    from schemas.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class RunToTheEnd:
    """How a run is brought to its end.

    Attributes:
        storage: Where the run is.
        claimed: The run.
        engine: Runs the shards.
        max_quarantined_fraction: The error budget, in [0, 1].
        metrics_file: File for Prometheus, or None.
        title: What is being done, for the progress.
    """

    storage: Storage
    claimed: ClaimedRun
    engine: Engine
    max_quarantined_fraction: float
    metrics_file: Path | None = None
    title: str = "tokenizing"

    def run(self) -> Manifest:
        """Do every open step, then count, and write manifest and `_SUCCESS`.

        Raises:
            ShardsFailedError: If shards could not be written, or there is no room.
            BadDataError: If more rows are bad than the budget allows.
            KeyboardInterrupt: If somebody stops it; with a note of what is kept.
        """
        from pipelines.errors import ShardsFailedError, StorageFullError
        from pipelines.runs.manifest import finish_run
        from pipelines.work_steps import joined_report, open_steps

        steps = open_steps(self.storage, self.claimed)
        reports: list[EngineReport] = []
        watch = _Watch(
            budget=self.max_quarantined_fraction,
            num_planned=self._num_planned(),
            metrics=self._metrics(sum(step.num_rows for step in steps)),
        )
        try:
            with ProgressDisplay(self.title, total=sum(step.num_rows for step in steps)) as watch.display:
                for step in steps:
                    report = self.engine.run_shards(step.plan, step.shards, step.writer, watch.on_progress)
                    watch.end_step(report)
                    reports.append(report)
                    if report.failures:
                        raise _failure(step, report)
        except KeyboardInterrupt as interruption:
            interruption.add_note(self._kept(steps))
            raise
        except StorageFullError as error:
            raise ShardsFailedError(f"{error} {self._kept(steps)}") from error
        report = joined_report(reports)
        manifest = finish_run(
            self.claimed,
            known_parts=report.parts,
            num_processed=report.num_processed,
            wall_seconds=report.wall_seconds,
            stages=report.stages,
            bottleneck=report.bottleneck,
            max_quarantined_fraction=self.max_quarantined_fraction,
            storage=self.storage,
        )
        if watch.metrics is not None:
            watch.metrics.write(num_done=report.num_processed, reasons=watch.reasons, stages=report.stages)
        return manifest

    def _metrics(self, num_planned: int) -> MetricsFile | None:
        if self.metrics_file is None:
            return None
        from pipelines.metrics_file import MetricsFile

        metrics = MetricsFile(path=self.metrics_file, num_planned=num_planned)
        metrics.write(num_done=0, reasons={}, stages={})  # A place that cannot be written to shows now.
        return metrics

    def _num_planned(self) -> int:
        from pipelines.runs.rounds import read_rounds

        return self.claimed.config.settings.num_inputs + sum(one.num_new for one in read_rounds(self.storage))

    def _kept(self, steps: list[WorkStep]) -> str:
        """How many shards are committed, of the run and of the retry or extension under way."""
        from pipelines.runs.commit import committed_shards
        from pipelines.work_steps import open_steps

        num_shards = self.claimed.plan.num_shards
        num_done = sum(shard < num_shards for shard in committed_shards(self.storage))
        parts = [f"{num_done} of {num_shards} shards are committed and kept"]
        left = {step.name: len(step.shards) for step in open_steps(self.storage, self.claimed)}
        for step in steps:
            if step.name != "run":
                num_all = len(step.shards)
                parts.append(f"of {step.name}, {num_all - left.get(step.name, 0)} of {num_all} that were left")
        return "; ".join(parts) + "."


class _Watch:
    """Takes in progress of all steps: display, error budget, metrics."""

    def __init__(self, *, budget: float, num_planned: int, metrics: MetricsFile | None) -> None:
        self.budget = budget
        self.num_planned = num_planned
        self.metrics = metrics
        self.display: ProgressDisplay | None = None
        self.reasons: Counter[str] = Counter()
        self._reasons_before: Counter[str] = Counter()
        self._num_before = 0

    def on_progress(self, progress: Progress) -> None:
        """Show a step's progress on top of the steps before it; stop a run that is mostly garbage."""
        import dataclasses

        from pipelines.runs.manifest import refuse_over_budget

        self.reasons = self._reasons_before + Counter(progress.reasons)
        num_done, num_rejected = self._num_before + progress.num_done, self.reasons.total()
        if self.display is not None:
            self.display.update(num_done, f"{num_rejected} quarantined" if num_rejected else "")
        if self.metrics is not None:
            self.metrics.update(dataclasses.replace(progress, num_done=num_done, reasons=self.reasons))
        refuse_over_budget(self.reasons, self.num_planned, self.budget)

    def end_step(self, report: EngineReport) -> None:
        """The next step counts on from here."""
        self._reasons_before = self.reasons
        self._num_before += report.num_processed


def _failure(step: WorkStep, report: EngineReport) -> Exception:
    from pipelines.errors import ShardsFailedError

    reasons = "\n  ".join(f"shard {shard}: {reason}" for shard, reason in report.failures.items())
    return ShardsFailedError(
        f"shards: expected {len(step.shards)} to be written, got {len(report.failures)} that failed:\n  "
        f"{reasons}\nMend the cause and run the same command again; the others are kept."
    )


def summarize(manifest: Manifest, run_url: str) -> None:
    """Say what came of it."""
    pace = f", {manifest.images_per_second:.1f} pictures/s" if manifest.num_processed else ""
    slowest = f", slowest stage {manifest.bottleneck}" if manifest.bottleneck else ""
    say(
        f"{manifest.num_ok} of {manifest.num_planned} pictures tokenized in {len(manifest.parts)} shards"
        f"{pace}{slowest}, {manifest.bytes_per_image:.0f} bytes a picture"
    )
    for reason, count in manifest.quarantined_by_reason.items():
        say(f"quarantined: {count} {reason}")
    if manifest.rounds and manifest.rounds[-1].num_deleted:
        last = manifest.rounds[-1]
        say(f"gone from the inputs, tokens kept: {last.num_deleted}, listed in {run_url}/{last.deleted_path}")
    say(f"{run_url}/data/part-*.parquet")
    say(f"next: spae report {quote(run_url)}    spae detokenize {quote(run_url)} --out pictures")

"""A run in numbers for Prometheus, as a text file that its node exporter reads; rewritten whole while the run goes on.

Names and labels are for others to rely on: `spae_rows_planned`, `spae_rows_done`, `spae_rows_quarantined{stage,
error_class}`, `spae_shards_committed`, `spae_bytes_written`, `spae_pictures_per_second`, `spae_stage_seconds{stage,
state}` (state `busy`, `wait` or `idle`), `spae_bottleneck{stage}`, `spae_updated_timestamp_seconds`. All are of this
process: a resumed run begins at 0.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from pipelines.engine import Progress, bottleneck_of
from pipelines.errors import UsageError
from schemas.manifest import StageTiming

_SECONDS_BETWEEN_WRITES = 5.0


@dataclass(kw_only=True)
class MetricsFile:
    """Writes the file now and then.

    Attributes:
        path: Local file, best named `*.prom`.
        num_planned: Rows this process is going to handle.
    """

    path: Path
    num_planned: int
    _started: float = field(default_factory=time.monotonic)
    _written: float = -_SECONDS_BETWEEN_WRITES
    _num_shards: int = 0
    _num_bytes: int = 0

    def update(self, progress: Progress) -> None:
        """Take in how far the run is; writes if the last time is some seconds ago.

        Raises:
            UsageError: If the file cannot be written.
        """
        if progress.committed is not None:
            self._num_shards += 1
            self._num_bytes += progress.committed.size_bytes
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES:
            self.write(num_done=progress.num_done, reasons=progress.reasons, stages=progress.stages)

    def write(self, *, num_done: int, reasons: Mapping[str, int], stages: Mapping[str, StageTiming]) -> None:
        """Write the file now, whole.

        Args:
            num_done: Rows that are through.
            reasons: Rows in quarantine by `stage/error_class`.
            stages: Timing of each stage.

        Raises:
            UsageError: If the file cannot be written.
        """
        self._written = time.monotonic()
        registry = CollectorRegistry()
        seconds = self._written - self._started
        for name, text, value in (
            ("rows_planned", "Rows this process is going to handle.", self.num_planned),
            ("rows_done", "Rows that are through, good or quarantined.", num_done),
            ("shards_committed", "Shards this process has committed.", self._num_shards),
            ("bytes_written", "Bytes of the data files committed.", self._num_bytes),
            ("pictures_per_second", "Rows done by seconds passed.", num_done / seconds if seconds > 0 else 0.0),
            ("updated_timestamp_seconds", "When this file was written.", time.time()),
        ):
            Gauge(f"spae_{name}", text, registry=registry).set(value)
        quarantined = Gauge("spae_rows_quarantined", "Rows set aside.", ["stage", "error_class"], registry=registry)
        for reason, count in reasons.items():
            stage, _, error_class = reason.partition("/")
            quarantined.labels(stage=stage, error_class=error_class).set(count)
        time_spent = Gauge("spae_stage_seconds", "Where the time went.", ["stage", "state"], registry=registry)
        for stage, timing in stages.items():
            time_spent.labels(stage=stage, state="busy").set(timing.busy_seconds)
            time_spent.labels(stage=stage, state="wait").set(timing.wait_seconds)
            time_spent.labels(stage=stage, state="idle").set(timing.idle_seconds)
        slowest = Gauge("spae_bottleneck", "1 for the stage that sets the pace.", ["stage"], registry=registry)
        if num_done and stages:
            slowest.labels(stage=bottleneck_of(stages)).set(1)
        try:
            write_to_textfile(str(self.path), registry)
        except OSError as error:
            raise UsageError(
                f"--metrics-file {self.path}: expected a file that can be written, got: {error.strerror}. "
                "Choose another place."
            ) from error

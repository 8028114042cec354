"""Counts of a pipeline as Beam metrics, which every runner collects and shows on its own pages.

Counters of the namespace `spae`: `rows_done`, `rejected:<stage>/<error_class>`, `busy_us:<stage>`; and the string
set `failures` of shards that could not be written.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult

from pipelines.engines.beam.local_signals import LocalSignals
from pipelines.stages.stage import RejectedRow

NAMESPACE = "spae"
_DONE, _REJECTED, _BUSY, _FAILURES = "rows_done", "rejected:", "busy_us:", "failures"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Counts what a worker does; pickles.

    Attributes:
        signals: Where the driver of the same machine reads the counts meanwhile, if it does.
    """

    signals: LocalSignals | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether the driver asked its workers to stop."""
        return self.signals is not None and self.signals.is_stopping

    def begin(self) -> None:
        """Let the driver know that this worker lives."""
        if self.signals is not None:
            self.signals.tell(0, {})

    def rows(self, num_good: int, rejected: Sequence[RejectedRow]) -> None:
        """Count rows that need no further stage: through the model, or rejected anywhere."""
        num_done = num_good + len(rejected)
        if not num_done:
            return
        reasons = Counter(f"{row.stage}/{row.error_class}" for row in rejected)
        Metrics.counter(NAMESPACE, _DONE).inc(num_done)
        for reason, count in reasons.items():
            Metrics.counter(NAMESPACE, _REJECTED + reason).inc(count)
        if self.signals is not None:
            self.signals.tell(num_done, reasons)

    def busy(self, stage: str, seconds: float) -> None:
        """Count the time a stage worked."""
        Metrics.counter(NAMESPACE, _BUSY + stage).inc(round(seconds * 1e6))

    def failed(self, shard: int, error: Exception) -> None:
        """Note a shard that could not be written, and why."""
        Metrics.string_set(NAMESPACE, _FAILURES).add(json.dumps([shard, type(error).__name__, str(error)]))


@dataclass(kw_only=True, slots=True)
class Totals:
    """What the workers of a pipeline counted; zero where a runner has no metrics.

    Attributes:
        num_done: Rows that got through, good or rejected.
        reasons: Rejected ones among them, by `stage/error_class`.
        busy_seconds: Time each stage worked, over all workers.
        failures: Shard -> class of the error and its message.
    """

    num_done: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    busy_seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, result: PipelineResult) -> "Totals":
        """Read the metrics of a pipeline, running or ended."""
        totals = cls()
        metrics = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
        for counter in metrics["counters"]:
            name, value = counter.key.metric.name, counter.result or 0
            if name == _DONE:
                totals.num_done += value
            elif name.startswith(_REJECTED):
                totals.reasons[name.removeprefix(_REJECTED)] += value
            elif name.startswith(_BUSY):
                stage = name.removeprefix(_BUSY)
                totals.busy_seconds[stage] = totals.busy_seconds.get(stage, 0.0) + value / 1e6
        for strings in metrics.get("string_sets", ()):
            for text in strings.result or ():
                shard, error_class, message = json.loads(text)
                totals.failures[shard] = (error_class, message)
        return totals

    def add(self, other: "Totals") -> None:
        """Take in what another pipeline of the same run counted."""
        self.num_done += other.num_done
        self.reasons.update(other.reasons)
        for stage, seconds in other.busy_seconds.items():
            self.busy_seconds[stage] = self.busy_seconds.get(stage, 0.0) + seconds
        self.failures.update(other.failures)

"""What every engine takes and gives: shards of a plan in, committed parts and a report out.

An engine has one verb, `run_shards`. It knows the stages by their declared resources only, and the other engines
not at all; the local one is the oracle they are compared with.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.runs.commit import ShardWriter
from pipelines.runs.plan import Plan
from schemas.manifest import PartEntry, StageTiming

#: Name under which writing shards appears among the timings.
COMMIT = "commit_shards"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is; counts of this process only.

    Attributes:
        num_done: Rows that are through, good or rejected.
        reasons: Rows rejected so far, by `stage/error_class`.
        committed: The shard just committed, or None between commits.
        stages: Timing of each stage so far; empty if the engine learns it at the end only.
    """

    num_done: int
    reasons: Mapping[str, int]
    committed: PartEntry | None = None
    stages: Mapping[str, StageTiming] = field(default_factory=dict)

    @property
    def num_rejected(self) -> int:
        """Rows rejected so far."""
        return sum(self.reasons.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineReport:
    """What one call of `run_shards` did.

    Attributes:
        parts: Shards committed.
        failures: Shard -> why it could not be written.
        num_processed: Rows that went through the stages.
        wall_seconds: Time for all of it.
        stages: Timing of each stage, in order, and of the commits.
    """

    parts: tuple[PartEntry, ...]
    failures: dict[int, str]
    num_processed: int
    wall_seconds: float
    stages: dict[str, StageTiming]

    @property
    def bottleneck(self) -> str | None:
        """The stage whose workers were busy longest; None if nothing ran."""
        return bottleneck_of(self.stages) if self.num_processed else None


def bottleneck_of(stages: Mapping[str, StageTiming]) -> str:
    """The stage whose workers were busy longest; there must be one."""
    return max(stages, key=lambda name: stages[name].busy_seconds / max(stages[name].num_workers, 1))


class Engine(Protocol):
    """Places stages somewhere and runs them over shards."""

    def run_shards(
        self,
        plan: Plan,
        shards: Sequence[int],
        writer: ShardWriter,
        on_progress: Callable[[Progress], None],
    ) -> EngineReport:
        """Process shards and commit each.

        A shard that cannot be written is reported and leaves the others alone; a full disk ends the run, as
        every other shard would meet it too.

        Args:
            plan: Where the rows are.
            shards: Shards to do.
            writer: Commits a shard.
            on_progress: Called as rows get through and after each commit; may raise to stop the run between the
                two.

        Raises:
            StorageFullError: If there is no room for a shard; those before it are committed.
        """
        ...

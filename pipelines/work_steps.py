"""What is still to do in a run, as steps an engine can take one after the other: the run itself, then its rounds."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.engine import EngineReport
from pipelines.runs.claim import ClaimedRun
from pipelines.runs.commit import ShardWriter
from pipelines.runs.plan import Plan
from pipelines.runs.round_commit import round_writer
from pipelines.runs.rounds import missing_shards, open_round_plan, read_rounds
from pipelines.storage import Storage
from schemas.manifest import StageTiming


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkStep:
    """Shards of one plan, and who commits them.

    Attributes:
        name: For messages, e.g. `retry 2`.
        plan: Where the rows are.
        shards: Shards to do, in order; not empty.
        writer: Commits them.
        num_rows: About how many rows that is.
    """

    name: str
    plan: Plan
    shards: Sequence[int]
    writer: ShardWriter
    num_rows: int


def open_steps(storage: Storage, claimed: ClaimedRun) -> list[WorkStep]:
    """Steps that are not done yet, in the order in which they must be taken; none if every shard is committed."""
    steps = []
    if claimed.missing:
        settings = claimed.config.settings
        steps.append(
            WorkStep(
                name="run",
                plan=claimed.plan,
                shards=claimed.missing,
                writer=ShardWriter(storage=storage, config=claimed.config, kept_fields=claimed.plan.kept_fields()),
                num_rows=settings.num_inputs * len(claimed.missing) // claimed.plan.num_shards,
            )
        )
    for one in read_rounds(storage):
        shards = missing_shards(storage, one)
        if shards:
            plan = open_round_plan(storage, one)
            steps.append(
                WorkStep(
                    name=f"{one.kind} {one.number}",
                    plan=plan,
                    shards=shards,
                    writer=round_writer(claimed.plan, claimed.config, one),
                    num_rows=one.num_rows * len(shards) // max(len(plan.shards()), 1),
                )
            )
    return steps


def joined_report(reports: Sequence[EngineReport]) -> EngineReport:
    """One report of several steps; times add up."""
    stages: dict[str, StageTiming] = {}
    for report in reports:
        for name, timing in report.stages.items():
            so_far = stages.get(name, StageTiming(busy_seconds=0.0, wait_seconds=0.0, num_workers=0))
            stages[name] = StageTiming(
                busy_seconds=so_far.busy_seconds + timing.busy_seconds,
                wait_seconds=so_far.wait_seconds + timing.wait_seconds,
                idle_seconds=so_far.idle_seconds + timing.idle_seconds,
                num_workers=max(so_far.num_workers, timing.num_workers),
            )
    return EngineReport(
        parts=tuple(part for report in reports for part in report.parts),
        failures={shard: why for report in reports for shard, why in report.failures.items()},
        num_processed=sum(report.num_processed for report in reports),
        wall_seconds=sum(report.wall_seconds for report in reports),
        stages=stages,
    )

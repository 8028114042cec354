"""Runs on Ray with stages that need no model: for tests of what the engine does, not of what is computed."""

from pathlib import Path

from crashing_stages import FakeModel, PassOn
from runs import claim_made_up

from pipelines.engine import EngineReport
from pipelines.engines.ray_data import RayEngine, RayOptions
from pipelines.runs.claim import ClaimedRun
from pipelines.runs.commit import ShardWriter
from pipelines.stages.stage import Stage
from pipelines.storage import LocalStorage


def run_on_ray(
    claimed: ClaimedRun,
    *,
    feed: Stage | None = None,
    model: Stage | None = None,
    shards: list[int] | None = None,
    on_progress=lambda progress: None,
    **options: object,
) -> EngineReport:
    """Run the missing shards, or those named, on the cluster this process is connected to."""
    engine = RayEngine(
        feeding_stages=[feed or PassOn()],
        model_stage=model or FakeModel(),
        options=RayOptions(**{"max_actors": 2, **options}),
    )
    writer = ShardWriter(storage=claimed.plan.storage, config=claimed.config)
    return engine.run_shards(claimed.plan, claimed.missing if shards is None else shards, writer, on_progress)


def made_up_run(folder: Path, *, num_inputs: int = 12, num_shards: int = 3, **run: object):
    """A run from its claim to its last shard; the report and the storage."""
    storage = LocalStorage(folder / "run")
    claimed = claim_made_up(storage, folder / "plan", num_inputs=num_inputs, num_shards=num_shards)
    return run_on_ray(claimed, **run), storage

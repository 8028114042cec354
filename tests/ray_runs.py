"""Runs on Ray with stages that need no model: for tests of what the engine does, not of what is computed."""

from pathlib import Path

from crashing_stages import FakeModel, PassOn
from runs import CODEBOOK_SIZE, draft_plan, run_config

from pipelines.claim import ClaimedRun, claim_run
from pipelines.commit import ShardWriter
from pipelines.engine import EngineReport
from pipelines.engines.ray_data import RayEngine, RayOptions
from pipelines.stages.stage import Stage
from pipelines.storage import LocalStorage, Storage
from schemas.codebook_table import codebook_table


def claim_made_up(storage: Storage, folder: Path, *, num_inputs: int = 12, num_shards: int = 3) -> ClaimedRun:
    """Start or resume a run over inputs `/photos/0.jpg` … that nobody reads."""
    draft = draft_plan(folder, num_inputs, num_shards=num_shards)
    words = [f"word{index}" for index in range(CODEBOOK_SIZE)]
    table = codebook_table(
        words=words, token_ids=range(100, 100 + CODEBOOK_SIZE), codebook_sha256="b" * 64, source="made up"
    )
    return claim_run(storage, run_config(draft), draft, table)


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

"""The Ray engine: the same stages on the workers of a cluster, streamed by Ray Data.

Shard numbers become plan rows, plan rows become pixels on CPU tasks, pixels become tokens in a pool of actors, each
with its own GPU or share of one, and the rows come back to the driver, which commits a shard as soon as it is whole.
No step waits for all rows of the one before: there is no shuffle and no grouping.

Ray repeats what a dead worker or node was doing. What it gives up on, and whatever got lost on the way, is run again
here: shards without all their rows are streamed once more, and the rows of a shard are counted against the plan
before it is committed.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.engine import COMMIT, EngineReport, Progress
from pipelines.engines.ray_data.collector import NUM_COMMIT_THREADS, Collector
from pipelines.engines.ray_data.model_shipping import ShippedModel, ship_model
from pipelines.engines.ray_data.options import RayOptions
from pipelines.engines.ray_data.placement import Placement, place
from pipelines.engines.ray_data.session import ray_session
from pipelines.engines.ray_data.streams import apply_stages, quieten, user_error
from pipelines.engines.ray_data.workers import read_plan
from pipelines.runs.commit import ShardWriter
from pipelines.runs.plan import Plan
from pipelines.stages.stage import Stage
from schemas.manifest import StageTiming

if TYPE_CHECKING:
    from ray.data import Dataset

#: Streams in a row that may end without one more committed shard before the rest is given up.
_MOST_FRUITLESS_STREAMS = 3

#: Up to so many shards, each is a task of its own; beyond, a task reads the plan of several.
_SHARDS_READ_ALONE = 1000
_SHARDS_READ_TOGETHER = 16


class _StreamLostError(Exception):
    """A stream ended because Ray lost what it could not restore."""


@dataclass(kw_only=True)
class RayEngine:
    """Places stages on the workers of a Ray cluster.

    Attributes:
        feeding_stages: Stages of the CPU tasks, in order: reading and decoding.
        model_stage: The stage of the actors; `resources.gpu_fraction` is the GPU each of them is given.
        options: Which cluster, and the bounds of the pool.
    """

    feeding_stages: Sequence[Stage]
    model_stage: Stage
    options: RayOptions = field(default_factory=RayOptions)

    def run_shards(
        self,
        plan: Plan,
        shards: Sequence[int],
        writer: ShardWriter,
        on_progress: Callable[[Progress], None],
    ) -> EngineReport:
        """Process shards, begun in their order, and commit each when it is done; see `pipelines.engine.Engine`.

        The workers read the plan; this machine commits. `on_progress` is called after each block and each commit.

        Raises:
            UsageError: If there is no such cluster, or it lacks the GPUs asked for.
            StorageFullError: If there is no room for a shard; those before it are committed.
        """
        stages = (*self.feeding_stages, self.model_stage)
        with (
            ray_session(self.options) as cluster,
            Collector(
                plan=plan, writer=writer, on_progress=on_progress, stage_names=tuple(stage.name for stage in stages)
            ) as collector,
        ):
            decode_cpus = max((stage.resources.num_cpus for stage in self.feeding_stages), default=1.0)
            placement = place(cluster, self.model_stage.resources, decode_cpus, self.options)
            # Its own machine has the model's folder; another one is sent the files.
            is_remote = self.options.address is not None
            shipped = ship_model(self.model_stage) if is_remote else ShippedModel(stage=self.model_stage)
            started = time.perf_counter()
            self._stream_until_done(plan, list(shards), shipped, placement, collector)
            return self._report(collector, placement, time.perf_counter() - started)

    def _stream_until_done(
        self, plan: Plan, shards: list[int], shipped: ShippedModel, placement: Placement, collector: Collector
    ) -> None:
        """Stream the shards; those that a loss left incomplete again, as long as that gets any further."""
        num_fruitless = 0
        while shards:
            reason = "rows got lost between workers"
            try:
                with closing(self._blocks(plan, shards, shipped, placement)) as blocks:
                    for rows in blocks:
                        collector.take(rows)
            except _StreamLostError as loss:
                reason = str(loss)
            collector.finish_commits()
            left = collector.left_of(shards)
            num_fruitless = num_fruitless + 1 if len(left) == len(shards) else 0
            if num_fruitless == _MOST_FRUITLESS_STREAMS:
                collector.fail(left, f"given up after {num_fruitless} tries without any progress: {reason}")
                return
            shards = left

    def _blocks(
        self, plan: Plan, shards: list[int], shipped: ShippedModel, placement: Placement
    ) -> Generator[pa.Table, None, None]:
        """Rows with their tokens as they get done; closing it ends what is under way on the workers.

        Raises:
            _StreamLostError: If Ray gave up on a worker, a node or an object.
            PipelineError: What a stage's `setup` raised on a worker; also ModelError.
        """
        dataset = self._dataset(plan, shards, shipped, placement)
        blocks = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))
        try:
            yield from blocks
        except Exception as error:
            own = user_error(error)
            if own is not None:
                raise own from error
            if _is_loss(error):
                raise _StreamLostError(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from error
            raise
        finally:
            blocks.close()  # type: ignore[attr-defined]

    def _dataset(self, plan: Plan, shards: list[int], shipped: ShippedModel, placement: Placement) -> "Dataset":
        import ray.data

        num_tasks = min(len(shards), max(_SHARDS_READ_ALONE, len(shards) // _SHARDS_READ_TOGETHER))
        dataset = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=num_tasks)
        quieten(dataset, max_bytes_in_flight=self.options.max_bytes_in_flight)
        rows = dataset.map_batches(
            read_plan,  # type: ignore[arg-type]
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"plan": plan},
            num_cpus=min(placement.decode_cpus, 0.25),
        )
        return apply_stages(rows, feeding_stages=self.feeding_stages, model=shipped, placement=placement)

    def _report(self, collector: Collector, placement: Placement, wall_seconds: float) -> EngineReport:
        busy = collector.busy_seconds
        num_actors = max(1, len(collector.model_workers))
        feeding = [stage.name for stage in self.feeding_stages]
        idle = max(0.0, placement.num_decode_slots * wall_seconds - sum(busy[name] for name in feeding))
        stages = {
            name: StageTiming(busy_seconds=busy[name], wait_seconds=idle, num_workers=placement.num_decode_slots)
            for name in feeding
        }
        model = self.model_stage.name
        waited = max(0.0, num_actors * wall_seconds - busy[model])
        stages[model] = StageTiming(busy_seconds=busy[model], wait_seconds=waited, num_workers=num_actors)
        stages[COMMIT] = StageTiming(busy_seconds=busy[COMMIT], wait_seconds=0.0, num_workers=NUM_COMMIT_THREADS)
        return EngineReport(
            parts=tuple(sorted(collector.parts, key=lambda part: part.shard)),
            failures=dict(sorted(collector.failures.items())),
            num_processed=collector.num_done,
            wall_seconds=wall_seconds,
            stages=stages,
        )


def _is_loss(error: Exception) -> bool:
    """Whether Ray lost a worker, a node or an object, rather than our code having failed."""
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import (
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
        RayActorError,
        WorkerCrashedError,
    )

    losses = (
        RayActorError,
        WorkerCrashedError,
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
        ExecutionTimeoutError,
    )
    return isinstance(error, losses) or isinstance(error.__cause__, losses)

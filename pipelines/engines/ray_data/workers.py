"""What runs on Ray's workers: shard numbers to plan rows, plan rows to pixels, pixels to tokens.

Each takes an Arrow table and gives one; the columns that hold a shard together (`RUN_COLUMNS`) travel with each row,
so the driver can tell from the rows alone when a shard is whole, in whatever order they arrive.
"""

import os
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engines.ray_data.metrics import WorkerMetrics
from pipelines.engines.ray_data.model_shipping import ShippedModel
from pipelines.engines.ray_data.rows import REJECTED_STAGE, busy_column, run_aligned
from pipelines.errors import PipelineError
from pipelines.runs.plan import Plan
from pipelines.stages.stage import Stage
from pipelines.storage import driver_errors_as_os_error
from spae_core.errors import ModelError

#: Shard of a row, how many rows the plan gives that shard, and who ran the model on the row.
SHARD, NUM_PLANNED, MODEL_WORKER = "_shard", "_num_planned", "_model_worker"
RUN_COLUMNS = (SHARD, NUM_PLANNED)


def read_plan(shards: pa.Table, *, plan: Plan) -> Iterator[pa.Table]:
    """Shard numbers to the rows the plan gives them; an empty shard gives one row without a `sample_id`.

    Raises:
        PipelineError: If this machine cannot read the plan that the driver could write.
    """
    for shard in shards["shard"].to_pylist():
        try:
            with driver_errors_as_os_error():
                rows = plan.rows_to_read(shard)
        except OSError as error:
            raise PipelineError(
                f"plan of {plan.storage.url()}: expected the Ray worker on {os.uname().nodename} to read it, "
                f"got: {error}. Give workers the network and credentials of this machine: its environment variables "
                "stay here. Then run the same command again."
            ) from error
        num_planned = rows.num_rows
        if num_planned == 0:
            rows = pa.Table.from_pylist([dict.fromkeys(rows.schema.names)], schema=rows.schema)
        for name, value in ((SHARD, shard), (NUM_PLANNED, num_planned)):
            rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.int32()))
        yield rows


def feed(rows: pa.Table, *, stages: Sequence[Stage], carried: Sequence[str] = RUN_COLUMNS) -> pa.Table:
    """Read and decode, on a task; the markers of empty shards pass by."""
    for stage in stages:
        stage.setup()
    is_marker = pc.is_null(rows["sample_id"])
    fed = run_aligned(stages, rows.filter(pc.invert(is_marker)), carried=carried)
    markers = rows.filter(is_marker).select(list(carried))
    return pa.concat_tables([fed, markers], promote_options="default") if markers.num_rows else fed


class ModelWorker:
    """The model, in an actor: loaded once, then one block after the other."""

    def __init__(self, shipped: ShippedModel, carried: Sequence[str] = RUN_COLUMNS) -> None:
        self.carried = tuple(carried)
        self.failure: Exception | None = None
        self.metrics = WorkerMetrics()
        self.worker = f"{os.uname().nodename}:{os.getpid()}"
        try:
            self.stage = shipped.unpack()
            self.stage.setup()
        except (PipelineError, ModelError) as error:
            # Raised by the first block instead: an actor that dies young takes its reason along.
            self.failure = error

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Tokenize the good rows of a block; rejected ones and markers pass by."""
        if self.failure is not None:
            raise self.failure
        is_marker = pc.is_null(rows["sample_id"])
        done = run_aligned([self.stage], rows.filter(pc.invert(is_marker)), carried=self.carried)
        done = done.append_column(MODEL_WORKER, pa.array([self.worker] * done.num_rows, pa.string()))
        self.metrics.add(
            num_done=done.num_rows,
            num_quarantined=pc.sum(pc.is_valid(done[REJECTED_STAGE])).as_py() or 0,
            busy_seconds=pc.sum(done[busy_column(self.stage.name)]).as_py() or 0.0,
        )
        markers = rows.filter(is_marker).select(list(self.carried))
        return pa.concat_tables([done, markers], promote_options="default") if markers.num_rows else done

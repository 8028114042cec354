"""Rows on their way through Ray: good and rejected ones side by side, none ever missing.

A stage gives rejected rows beside its batch; a stream has one kind of row. Here a rejected row stays in its place,
with nulls where a good one has results, and `rejected_stage`, `rejected_class` and `rejected_message` for the reason.
"""

import time
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.bisection import run_isolating
from pipelines.stages.stage import RejectedRow, Stage

REJECTED_STAGE, REJECTED_CLASS, REJECTED_MESSAGE = "rejected_stage", "rejected_class", "rejected_message"
REJECTION = (REJECTED_STAGE, REJECTED_CLASS, REJECTED_MESSAGE)

_BUSY = "_busy_"


def busy_column(stage_name: str) -> str:
    """Column with a row's share of the seconds a stage was busy; sums survive any cut of the stream."""
    return f"{_BUSY}{stage_name}"


def run_aligned(stages: Sequence[Stage], rows: pa.Table, *, carried: Iterable[str] = ()) -> pa.Table:
    """Run stages over rows that may hold rejected ones already, and give one row for each.

    Args:
        stages: Stages that have been set up, in order.
        rows: Any number of rows with `sample_id`, different in each, and `uri`.
        carried: Columns of `rows` that the stages are not shown and that come back as they were, also for rejected
            rows.

    Returns:
        The rows in their order: the carried columns, those the last stage gives, the reason of a rejection, and the
        busy seconds of each stage.
    """
    before = rows.select(list(REJECTION)) if REJECTED_STAGE in rows.schema.names else _no_rejection(rows.num_rows)
    hidden = {*carried, *REJECTION}
    kept = [name for name in rows.schema.names if name in hidden and name not in REJECTION]
    kept += [name for name in rows.schema.names if name.startswith(_BUSY) and name not in kept]
    shown = [name for name in rows.schema.names if name not in hidden and name not in kept]
    batch = one_batch(rows.select(shown).filter(pc.is_null(before[REJECTED_STAGE])))
    rejected: list[RejectedRow] = []
    columns = {name: rows[name] for name in kept}
    for stage in stages:
        started = time.perf_counter()
        num_rows, size = batch.num_rows, stage.resources.batch_size
        results = [run_isolating(stage, batch[start : start + size]) for start in range(0, max(num_rows, 1), size)]
        batch = one_batch(pa.Table.from_batches([result.batch for result in results]))
        rejected += [row for result in results for row in result.rejected]
        share = (time.perf_counter() - started) / max(rows.num_rows, 1)
        columns[busy_column(stage.name)] = pa.array([share] * rows.num_rows, pa.float64())
    ids = rows["sample_id"].to_pylist()
    places = {sample_id: place for place, sample_id in enumerate(batch["sample_id"].to_pylist())}
    take = pa.array([places.get(sample_id) for sample_id in ids], pa.int64())
    results_of_rows = {name: batch[name].take(take) for name in batch.schema.names if name not in ("sample_id", "uri")}
    reasons = {row.sample_id: (row.stage, row.error_class, row.message) for row in rejected}
    rejection = {
        name: pa.array(
            [reasons[sample_id][place] if sample_id in reasons else old
             for sample_id, old in zip(ids, before[name].to_pylist(), strict=True)],
            pa.string(),
        )
        for place, name in enumerate(REJECTION)
    }  # fmt: skip
    own = {name: rows[name] for name in ("sample_id", "uri")}
    return pa.table({**columns, **own, **results_of_rows, **rejection})


def rejected_rows(rows: pa.Table) -> list[RejectedRow]:
    """The rejected ones among rows of the stream."""
    table = rows.filter(pc.is_valid(rows[REJECTED_STAGE])).select(["sample_id", "uri", *REJECTION])
    return [
        RejectedRow(
            sample_id=row["sample_id"],
            uri=row["uri"],
            stage=row[REJECTED_STAGE],
            error_class=row[REJECTED_CLASS],
            message=row[REJECTED_MESSAGE],
        )
        for row in table.to_pylist()
    ]


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch, also without rows."""
    batches = table.combine_chunks().to_batches()
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _no_rejection(num_rows: int) -> pa.Table:
    return pa.table({name: pa.nulls(num_rows, pa.string()) for name in REJECTION})

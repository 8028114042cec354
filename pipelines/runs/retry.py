"""Plan a retry: the rows that are in quarantine now, once more.

An input that was mended meanwhile is read as it is now: where its size differs from the plan, the new one is planned.
"""

from collections.abc import Mapping, Sequence

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UsageError
from pipelines.runs.plan import Plan
from pipelines.runs.rounds import claim_round, planned_rows, publish_table, quarantined_now
from pipelines.storage import driver_errors_as_os_error
from schemas.rounds import Round

ATTEMPT = pa.field("attempt", pa.int32(), nullable=False)


def plan_retry(plan: Plan, rounds: Sequence[Round], *, error_classes: Sequence[str] = ()) -> Round | None:
    """Claim a retry of what is in quarantine.

    Args:
        plan: The plan of the run; its storage is the run's.
        rounds: Its rounds so far, all of them finished.
        error_classes: Rows to take, by `error_class` or `stage/error_class`. Default: all.

    Returns:
        The round, or None if there is nothing to retry.

    Raises:
        UsageError: If no row of the quarantine has one of the classes, though it has others.
    """
    waiting = quarantined_now(plan.storage)
    if not waiting:
        return None
    tables = []
    for shard, records in waiting.items():
        chosen = {i: row for i, row in records.items() if _is_chosen(row, error_classes)}
        if chosen:
            tables.append(_rows(planned_rows(plan, rounds, shard), chosen))
    if not tables:
        classes = sorted({str(row["error_class"]) for records in waiting.values() for row in records.values()})
        raise UsageError(
            f"--reason: expected error classes of the quarantine ({', '.join(classes)}), "
            f"got {', '.join(error_classes)}. Choose one of them, or leave it out for all."
        )
    rows = pa.concat_tables(tables)
    number = len(rounds) + 1
    path, sha256 = publish_table(plan.storage, number, "retry", rows)
    num_shards = rounds[-1].num_shards if rounds else plan.num_shards
    return claim_round(
        plan.storage,
        Round(
            number=number,
            kind="retry",
            plan_path=path,
            plan_sha256=sha256,
            num_rows=rows.num_rows,
            first_new_shard=num_shards,
            num_shards=num_shards,
            error_classes=tuple(sorted(error_classes)),
        ),
    )


def _is_chosen(row: Mapping[str, object], error_classes: Sequence[str]) -> bool:
    names = (row["error_class"], f"{row['stage']}/{row['error_class']}")
    return not error_classes or any(name in error_classes for name in names)


def _rows(planned: pa.Table, records: Mapping[str, Mapping[str, object]]) -> pa.Table:
    """The planned rows of these records, with the size the input has now and the number of the attempt."""
    rows = planned.filter(pc.is_in(planned["sample_id"], value_set=pa.array(list(records), pa.string())))
    sizes = []
    is_file = rows["record"].is_null().to_pylist() if "record" in rows.schema.names else [True] * rows.num_rows
    for uri, size, alone in zip(rows["uri"].to_pylist(), rows["size_bytes"].to_pylist(), is_file, strict=True):
        sizes.append(_size_now(uri, size) if alone else size)
    index = rows.schema.get_field_index("size_bytes")
    rows = rows.set_column(index, rows.schema.field(index), pa.array(sizes, pa.int64()))
    attempts = [int(str(records[sample_id]["attempt"])) + 1 for sample_id in rows["sample_id"].to_pylist()]
    return rows.append_column(ATTEMPT, pa.array(attempts, pa.int32()))


def _size_now(uri: str, planned: int | None) -> int | None:
    """Size of a file as it lies there now; as planned if it cannot be asked for."""
    try:
        with driver_errors_as_os_error():
            filesystem, path = fsspec.core.url_to_fs(uri)
            filesystem.invalidate_cache(path)
            size = filesystem.info(path)["size"]
    except OSError:
        return planned
    return None if size is None else int(size)

"""Rows as they travel between Beam's transforms, each on its own: Beam would pickle what it does not know."""

from collections.abc import Sequence

import pyarrow as pa

from pipelines.batch_bytes import batch_from_bytes, batch_to_bytes


def split_rows(batch: pa.RecordBatch) -> list[bytes]:
    """Each row as a batch of its own."""
    return [batch_to_bytes(batch.slice(row, 1)) for row in range(batch.num_rows)]


def join_rows(rows: Sequence[bytes]) -> pa.RecordBatch:
    """Rows of one schema as one batch; at least one row."""
    return pa.concat_batches([batch_from_bytes(row) for row in rows])

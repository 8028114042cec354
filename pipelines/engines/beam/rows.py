"""Rows as they travel between Beam's transforms: bytes of Arrow's stream format, one row or a chunk each.

Beam pickles what it does not know, and a pickled slice of an Arrow batch takes the whole batch along; the
stream format writes the slice alone and keeps the column types.
"""

from collections.abc import Sequence

import pyarrow as pa


def batch_to_bytes(batch: pa.RecordBatch) -> bytes:
    """A batch with its schema; inverse of `batch_from_bytes`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def batch_from_bytes(data: bytes) -> pa.RecordBatch:
    """The batch again; its columns refer to `data`."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()


def split_rows(batch: pa.RecordBatch) -> list[bytes]:
    """Each row as a batch of its own."""
    return [batch_to_bytes(batch.slice(row, 1)) for row in range(batch.num_rows)]


def join_rows(rows: Sequence[bytes]) -> pa.RecordBatch:
    """Rows of one schema as one batch; at least one row."""
    return pa.concat_batches([batch_from_bytes(row) for row in rows])

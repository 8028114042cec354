"""A record batch as bytes of Arrow's stream format, for other processes.

A pickled slice of an Arrow batch takes the whole batch along; the stream format writes the slice alone and keeps the
column types.
"""

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

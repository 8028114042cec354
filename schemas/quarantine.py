"""Rows that could not be processed, `quarantine/1`: one file a shard, written before its data file."""

import pyarrow as pa

from schemas.versions import QUARANTINE, SCHEMA_KEY

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),  # name of the stage that gave up
        pa.field("error_class", pa.string(), nullable=False),  # short and stable, to group by
        pa.field("message", pa.string(), nullable=False),  # one sentence for a person
        pa.field("attempt", pa.int32(), nullable=False),  # 1 for the first run, one more for each retry
    ],
    metadata={SCHEMA_KEY: QUARANTINE.encode()},
)

"""The plan of a run, `plan/2`: every input once, with the shard it belongs to, sorted by shard and sample_id.

`sample_id` is the first 32 hexadecimal digits of the SHA-256 of the uri's UTF-8 bytes, so any tool can
compute it again; `shard` is the first 16 digits of the row's key, read as an integer, modulo the number of
shards. The key is the sample_id; only records that are costly to read one by one (rows of a Parquet row group,
members of a compressed tar) share the key of their neighbours, so that one shard reads them together. Nothing else
matters: neither the order of the listing nor the number of workers can move a picture to another file.

A plan of a command that keeps columns of the user's own has one column more, `kept`, a struct of them.
"""

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from schemas.versions import PLAN, SCHEMA_KEY

#: Where a record lies inside its container; null for an input that is a file of its own.
RECORD_TYPE = pa.struct(
    [
        pa.field("container", pa.string()),  # path or url of the tar or Parquet file
        pa.field("offset_bytes", pa.int64()),  # tar: first byte of the member, in the unpacked stream if compressed
        pa.field("row_group", pa.int32()),  # Parquet: row group, from 0
        pa.field("row", pa.int32()),  # Parquet: row inside it, from 0
        pa.field("column", pa.string()),  # Parquet: leaf column with the encoded picture, e.g. `image.bytes`
        pa.field("problem", pa.string()),  # why nothing can be read here; such a row ends in the quarantine
    ]
)

PLAN_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),  # of the encoded picture; null if the listing does not say
        pa.field("etag_or_mtime", pa.string()),  # of the file or container; changes with the content, null if unknown
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("record", RECORD_TYPE),
    ],
    metadata={SCHEMA_KEY: PLAN.encode()},
)

#: Name of the struct column with the user's own columns, in plans and through the stages.
KEPT = "kept"


def plan_schema(kept_fields: Sequence[pa.Field] = ()) -> pa.Schema:
    """The schema of a plan.

    Args:
        kept_fields: The user's own columns; none leaves `kept` out.
    """
    if not kept_fields:
        return PLAN_SCHEMA
    return PLAN_SCHEMA.append(pa.field(KEPT, pa.struct(list(kept_fields))))


def kept_fields_of(schema: pa.Schema) -> tuple[pa.Field, ...]:
    """The user's own columns that a plan, or a batch made from it, carries in `kept`."""
    index = schema.get_field_index(KEPT)
    return () if index < 0 else tuple(schema.field(index).type)


def sample_id_of(uri: str) -> str:
    """The id of the sample at a uri: 32 lower-case hexadecimal digits."""
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def shard_of(key: str, num_shards: int) -> int:
    """The shard of a key (a sample_id, or the id that neighbours in a container share), in [0, num_shards)."""
    return int(key[:16], 16) % num_shards

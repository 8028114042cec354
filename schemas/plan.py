"""The plan of a run, `plan/1`: every input once, with the shard it belongs to, sorted by shard and sample_id.

`sample_id` is the first 32 hexadecimal digits of the SHA-256 of the uri's UTF-8 bytes, so any tool can
compute it again; `shard` is its first 16 digits, read as an integer, modulo the number of shards. Both depend
on nothing else: neither the order of the listing nor the number of workers can move a picture to another
file.
"""

import hashlib

import pyarrow as pa

from schemas.versions import PLAN, SCHEMA_KEY

PLAN_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),  # null if the listing does not say
        pa.field("etag_or_mtime", pa.string()),  # changes when the content does; null if unknown
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
    ],
    metadata={SCHEMA_KEY: PLAN.encode()},
)


def sample_id_of(uri: str) -> str:
    """The id of the sample at a uri: 32 lower-case hexadecimal digits."""
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def shard_of(sample_id: str, num_shards: int) -> int:
    """The shard of a sample, in [0, num_shards)."""
    return int(sample_id[:16], 16) % num_shards

"""Crops to train on, `crops/1`: a row a crop, encoded as WebP; sizes and origin are in the set's `crops.json`."""

import pyarrow as pa

from schemas.versions import CROPS, SCHEMA_KEY

CROPS_SCHEMA = pa.schema(
    [
        pa.field("source", pa.int32(), nullable=False),  # line of sources.jsonl, from 0: the picture it was cut from
        pa.field("webp", pa.binary(), nullable=False),  # S × S, RGB
    ],
    metadata={SCHEMA_KEY: CROPS.encode()},
)

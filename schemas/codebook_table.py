"""The codebook as a table, `codebook-table/1`: what each code_index means, for joins without our code.

Example: `SELECT text FROM 'run/codebook.parquet' WHERE code_index = 42`.
"""

from collections.abc import Sequence

import pyarrow as pa

from schemas.versions import CODEBOOK_TABLE, SCHEMA_KEY

CODEBOOK_SCHEMA = pa.schema(
    [
        pa.field("code_index", pa.int32(), nullable=False),  # position in our codebook, 0 to V-1
        pa.field("token_id", pa.int32(), nullable=False),  # the id in the LLM's own vocabulary
        pa.field("text", pa.string(), nullable=False),  # the word as a person reads it
    ]
)


def codebook_table(*, words: Sequence[str], token_ids: Sequence[int], codebook_sha256: str, source: str) -> pa.Table:
    """Make the table of a codebook.

    Args:
        words: Text of each entry, V strings.
        token_ids: The LLM's id of each entry, V integers.
        codebook_sha256: Hash of the codebook, kept in the footer.
        source: Name of the LLM it was made from, kept in the footer.

    Raises:
        ValueError: If the two sequences differ in length.
    """
    if len(words) != len(token_ids):
        raise ValueError(
            f"codebook table: expected as many words as token ids, got {len(words)} and {len(token_ids)}. "
            "Build the codebook again."
        )
    footer = {
        SCHEMA_KEY: CODEBOOK_TABLE.encode(),
        b"spae.codebook_sha256": codebook_sha256.encode(),
        b"spae.source": source.encode(),
    }
    return pa.table(
        [
            pa.array(range(len(words)), pa.int32()),
            pa.array(token_ids, pa.int32()),
            pa.array(words, pa.string()),
        ],
        schema=CODEBOOK_SCHEMA.with_metadata(footer),
    )

"""Names and versions of everything the pipelines write, and the one check a reader makes.

A schema is named `<noun>/<version>`, e.g. `tokens/1`. Parquet files carry it in the footer under
`spae.schema`, JSON files under `schema`. Readers accept their own version and no other: a new version gets a
new number and a converter.
"""

TOKENS = "tokens/1"
QUARANTINE = "quarantine/1"
PLAN = "plan/2"
CODEBOOK_TABLE = "codebook-table/1"
RUN_CONFIG = "run-config/1"
MANIFEST = "manifest/1"
CROPS = "crops/1"
ROUND = "round/1"

#: Footer key of the schema's name in every Parquet file we write.
SCHEMA_KEY = b"spae.schema"


class SchemaError(ValueError):
    """A file is not of the schema its reader needs; the message names the file, both schemas and a remedy."""


def check_schema(got: str | None, expected: str, *, where: str) -> None:
    """Refuse a file of another schema or version.

    Args:
        got: Schema name found in the file, or None if it carries none.
        expected: One of the names above.
        where: Path or url of the file, for the message.

    Raises:
        SchemaError: If the two differ.
    """
    if got != expected:
        raise SchemaError(
            f"schema of {where}: expected {expected}, got {got or 'none'}. "
            "Give a file written by this version of spae, or convert it first."
        )

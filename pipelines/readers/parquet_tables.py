"""Parquet files with a picture a row: as bytes, as Hugging Face's struct of bytes and path, or as a uri.

Only the footer is read, and the columns that are kept or hold uris; the pictures themselves are read by the workers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UsageError
from pipelines.parquet_files import open_parquet
from pipelines.readers.entry import InputEntry, ListingNotes, ReadOptions, Record, damage
from pipelines.readers.image_column import NoImageColumnError, bytes_column, uri_column
from pipelines.readers.places import UnreachableError, entry_of_reference, open_for_reading
from schemas.versions import SCHEMA_KEY

#: Rows of a row group that come into one shard, because they are decoded together.
ROWS_READ_TOGETHER = 128

_BATCH_ROWS = 4096


def parquet_entries(file: InputEntry, options: ReadOptions, notes: ListingNotes) -> Iterator[InputEntry]:
    """The rows of a Parquet file, in order.

    Args:
        file: The file as listed.
        options: The column of the pictures, and the columns to keep.
        notes: Where to note the columns there are.

    Returns:
        An entry a row; and if the file is damaged, one more that says so.

    Raises:
        NoImageColumnError: If no column has pictures or says where they are, or several could.
        UsageError: If the pictures themselves are asked for as a column to keep.
        OSError: If the file cannot be reached.
    """
    with open_for_reading(file.uri) as source:
        try:
            yield from _rows(open_parquet(source), file, options, notes)
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            yield damage(
                file.uri,
                f"table {file.uri}: expected a whole Parquet file, got: {error}. Copy it again.",
                stamp=file.etag_or_mtime,
            )


def is_damage(error: BaseException) -> bool:
    """Whether an error of reading Parquet is the content's doing; Arrow raises OSError without a number for some."""
    if isinstance(error, pa.ArrowException):
        return True
    return isinstance(error, OSError) and error.errno is None and not isinstance(error, UnreachableError)


def _rows(parquet: pq.ParquetFile, file: InputEntry, options: ReadOptions, notes: ListingNotes) -> Iterator[InputEntry]:
    schema = parquet.schema_arrow
    if SCHEMA_KEY in (schema.metadata or {}):
        raise NoImageColumnError(
            f"table {file.uri}: expected pictures, got {schema.metadata[SCHEMA_KEY].decode()} of a run. "
            "Give the pictures it was made from."
        )
    leaf = bytes_column(schema, wanted=options.image_column, where=file.uri)
    uris = None
    if leaf is None:
        names = [field.name for field in schema if _is_text(field.type)]
        uris = uri_column(names, wanted=options.image_column, where=file.uri)
    pictures = uris or str(leaf).removesuffix(".bytes")
    notes.add_columns([name for name in schema.names if name != pictures])
    if leaf is not None and pictures in options.keep_columns:
        raise UsageError(
            f"--keep-columns {pictures}: expected columns beside the pictures, got the pictures of {file.uri}. "
            "Leave it out."
        )
    kept = [name for name in options.keep_columns if name in schema.names]
    number = 0
    for row_group in range(parquet.num_row_groups):
        values = _values(parquet, row_group, [*kept, *([uris] if uris and uris not in kept else [])])
        for row, found in enumerate(values):
            columns = options.kept({name: found[name] for name in kept})
            if uris is not None:
                yield _referenced(found[uris].as_py(), file, number, columns)
            else:
                yield InputEntry(
                    uri=f"{file.uri}#row={number}",
                    size_bytes=None,
                    etag_or_mtime=file.etag_or_mtime,
                    record=Record(container=file.uri, row_group=row_group, row=row, column=leaf),
                    shard_key=f"{file.uri}#row_group={row_group}/slice={row // ROWS_READ_TOGETHER}",
                    kept=columns,
                )
            number += 1


def _values(parquet: pq.ParquetFile, row_group: int, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """For each row of a row group, Arrow scalars of some columns."""
    num_rows = parquet.metadata.row_group(row_group).num_rows
    if not columns:
        yield from ({} for _ in range(num_rows))
        return
    for batch in parquet.iter_batches(
        batch_size=_BATCH_ROWS, row_groups=[row_group], columns=list(columns), use_threads=False
    ):
        for row in range(batch.num_rows):
            yield {name: batch[name][row] for name in columns}


def _referenced(reference: Any, file: InputEntry, number: int, columns: dict[str, Any]) -> InputEntry:  # noqa: ANN401
    if not reference:
        return damage(
            file.uri,
            f"row {number} of {file.uri}: expected a path or url, got nothing. Mend the table.",
            stamp=file.etag_or_mtime,
            name=f"row={number}",
        )
    found = entry_of_reference(reference, source=file.uri)
    return InputEntry(uri=found.uri, size_bytes=found.size_bytes, etag_or_mtime=found.etag_or_mtime, kept=columns)


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_text(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))

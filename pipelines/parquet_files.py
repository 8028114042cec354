"""Read and write Parquet our way: equal tables give equal bytes, and reading stays on the calling thread.

pyarrow's own `read_table` reads ahead in threads that may still hold a Python file when the interpreter ends;
the process then aborts after its work is done. Our files are small, and shards are what runs in parallel.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: Rows of a row group: about 40 MB of tokens before compression at 597 tokens an image.
ROW_GROUP_ROWS = 16_384


def to_parquet(table: pa.Table) -> bytes:
    """Parquet bytes of a table: zstd, page index for those who skip, page checksums for those who verify."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        row_group_size=ROW_GROUP_ROWS,
        write_page_index=True,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def open_parquet(source: BinaryIO | bytes, *, buffer_bytes: int = 0) -> pq.ParquetFile:
    """Open a Parquet file, checksums verified on reading; only the footer is read.

    Args:
        source: An open file or the whole content.
        buffer_bytes: Read columns in pieces of this size, in little memory. Default: a row group's column at once.

    Raises:
        pa.ArrowException: If it is no Parquet file, or a damaged one.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with _damage_as_arrow_error():
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=buffer_bytes, page_checksum_verification=True)
        # Damaged names are told here, and not wherever they are first looked at.
        _ = parquet.schema_arrow.names
        return parquet


def read_parquet(source: BinaryIO | bytes, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file whole, or some of its columns.

    Raises:
        pa.ArrowException: If it is no Parquet file, or a damaged one; OSError if a page's checksum is wrong.
    """
    file = open_parquet(source)
    with _damage_as_arrow_error():
        return file.read(columns=list(columns) if columns else None, use_threads=False)


def read_rows_equal(source: BinaryIO, *, column: str, value: int) -> pa.Table:
    """Read the rows with one value of an integer column; row groups that cannot have it are skipped.

    Args:
        source: An open file.
        column: Name of the column; the file should be sorted by it.
        value: The value.

    Raises:
        pa.ArrowException: If it is no Parquet file, or a damaged one; OSError if a page's checksum is wrong.
    """
    file = open_parquet(source)
    index = file.schema_arrow.get_field_index(column)
    groups = []
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(index).statistics
        if statistics is None or not statistics.has_min_max or statistics.min <= value <= statistics.max:
            groups.append(group)
    with _damage_as_arrow_error():
        table = file.read_row_groups(groups, use_threads=False)
    return table.filter(pc.equal(table[column], value))


@contextmanager
def _damage_as_arrow_error() -> Iterator[None]:
    """Pyarrow meets some damage only when it decodes names, in Python."""
    try:
        yield
    except (UnicodeDecodeError, TypeError) as error:
        raise pa.ArrowInvalid(f"damaged Parquet file: {error}") from error

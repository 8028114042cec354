"""Rows of one Parquet file by their place, decoded in blocks that are small enough to keep.

Parquet can be read from the start of a row group only, so rows are best asked for in order, as a plan's shard gives
them: then each row group is decoded once. Other orders are right too, but decode again. At the least one page of
the column is in memory, packed and unpacked; writers that batch 1,024 rows a page make large ones of large pictures.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipelines.parquet_files import open_parquet
from pipelines.readers.open_container import DamagedContainerError, OpenContainer
from pipelines.readers.parquet_tables import ROWS_READ_TOGETHER, is_damage
from pipelines.readers.places import open_for_reading

#: About the bytes of a block; one of a single row may be larger.
_BLOCK_BYTES = 8 << 20

#: Blocks of a file that stay in memory; threads read a little ahead of each other.
_MOST_BLOCKS = 4

#: Bytes of a column that are fetched and unpacked at a time.
_BUFFER_BYTES = 1 << 20


class ParquetRows(OpenContainer):
    """A Parquet file, open for reading pictures out of one of its columns."""

    def __init__(self, uri: str) -> None:
        """Read the footer.

        Raises:
            DamagedContainerError: If it is no whole Parquet file.
            OSError: If it cannot be reached.
        """
        self._uri = uri
        self._source = open_for_reading(uri)
        try:
            self._parquet = open_parquet(self._source, buffer_bytes=_BUFFER_BYTES)
        except (pa.ArrowException, OSError) as error:
            raise self._damage_or(error) from error
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int, int], pa.Array] = OrderedDict()
        self._ahead: tuple[str, int, int, Iterator[pa.RecordBatch]] | None = None

    def read(self, record: Mapping[str, Any], size_bytes: int | None) -> bytes:
        """The bytes in a row; see `OpenContainer.read`."""
        column, row_group, row = record["column"], record["row_group"], record["row"]
        with self._lock:
            block_rows = self._block_rows(row_group)
            values = self._block(column, row_group, row // block_rows)
        content: bytes | None = values[row % block_rows].as_py()
        if content is None:
            raise DamagedContainerError(
                f"row {row} of row group {row_group}: expected the bytes of a picture in {column}, got null. "
                "Give a table that has them."
            )
        return content

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _block_rows(self, row_group: int) -> int:
        """Rows of a block, by the mean size of a row."""
        metadata = self._parquet.metadata.row_group(row_group)
        mean_bytes = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
        return min(ROWS_READ_TOGETHER, max(1, _BLOCK_BYTES // int(mean_bytes)))

    def _block(self, column: str, row_group: int, index: int) -> pa.Array:
        key = (column, row_group, index)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        if self._ahead is None or self._ahead[:2] != (column, row_group) or self._ahead[2] > index:
            self._ahead = (column, row_group, 0, self._batches(column, row_group))
        _, _, next_index, batches = self._ahead
        try:
            for found_index in range(next_index, index + 1):
                values = _leaf_values(next(batches), column)
                self._ahead = (column, row_group, found_index + 1, batches)
        except (pa.ArrowException, OSError) as error:
            self._ahead = None
            raise self._damage_or(error) from error
        self._blocks[key] = values
        if len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return values

    def _batches(self, column: str, row_group: int) -> Iterator[pa.RecordBatch]:
        yield from self._parquet.iter_batches(
            batch_size=self._block_rows(row_group), row_groups=[row_group], columns=[column], use_threads=False
        )

    def _damage_or(self, error: BaseException) -> BaseException:
        """The error for whoever asked: damage of the file, or storage that failed."""
        if not is_damage(error):
            return error
        return DamagedContainerError(f"table {self._uri}: expected readable rows, got: {error}. Copy it again.")


def _leaf_values(batch: pa.RecordBatch, column: str) -> pa.Array:
    values = batch.column(0)
    if pa.types.is_struct(values.type):
        # flatten() minds the struct's own nulls, which field() would not.
        return values.flatten()[0]
    return values

"""The plan of a run: every input once, each in its shard, written before any work begins and never changed.

Workers read their own rows only: the file's name says which shards it holds, and its row groups are pruned by the
shard column. `plan_building` makes plans.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import BadDataError
from pipelines.parquet_files import open_parquet, read_parquet, read_rows_equal
from pipelines.runs.run_layout import shards_of_plan_file
from pipelines.storage import Storage
from schemas.plan import KEPT, kept_fields_of

#: What the first stage reads of a plan; `kept` passes through.
_COLUMNS_TO_READ = ("sample_id", "uri", "size_bytes", "etag_or_mtime", "record")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSummary:
    """What a plan amounts to.

    Attributes:
        sha256: Hash over all rows in order.
        num_inputs: Rows.
        num_shards: Shards the rows are dealt to.
        num_doubles: Inputs named more than once and planned once.
    """

    sha256: str
    num_inputs: int
    num_shards: int
    num_doubles: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftPlan:
    """A plan computed on this machine and not published yet.

    Attributes:
        summary: Hash and counts.
        folder: Where its files are; they live as long as the caller keeps the folder.
        file_names: Names of the plan files, in order of shards.
    """

    summary: PlanSummary
    folder: Path
    file_names: tuple[str, ...]

    def publish(self, storage: Storage) -> None:
        """Write the plan files, each only if absent: whoever else does so writes the same bytes."""
        for name in self.file_names:
            storage.create(name, (self.folder / name).read_bytes())

    def rows(self) -> Iterator[pa.Table]:
        """All rows, a table a file."""
        for name in self.file_names:
            yield read_parquet((self.folder / name).read_bytes())


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A published plan, read by the rows of one shard at a time. Pickles: a worker opens the files itself."""

    storage: Storage
    num_shards: int
    file_names: tuple[str, ...]

    @classmethod
    def open(cls, storage: Storage, num_shards: int) -> "Plan":
        """Find the plan files of a run.

        Raises:
            BadDataError: If a shard is in none of them or in several.
        """
        ranges = {name: shards_of_plan_file(name, num_shards) for name in storage.names()}
        held = {name: shards for name, shards in ranges.items() if shards is not None}
        if sorted(shard for shards in held.values() for shard in shards) != list(range(num_shards)):
            raise BadDataError(
                f"plan of {storage.url()}: expected files that hold shards 0 to {num_shards - 1} once each, "
                f"got {', '.join(sorted(held)) or 'none'}. Run the command again; it restores them."
            )
        return cls(storage=storage, num_shards=num_shards, file_names=tuple(sorted(held)))

    def read_shard(self, shard: int) -> pa.Table:
        """The rows of one shard, sorted by sample_id; `schemas.plan.plan_schema`.

        Raises:
            BadDataError: If its file is damaged.
        """
        for name in self.file_names:
            shards = shards_of_plan_file(name, self.num_shards)
            if shards is not None and shard in shards:
                with self.opened(name) as file:
                    return read_rows_equal(file, column="shard", value=shard)
        raise IndexError(f"shard: expected 0 to {self.num_shards - 1}, got {shard}. Use the run's own plan.")

    def rows_to_read(self, shard: int) -> pa.Table:
        """What the first stage needs of a shard, in the order in which containers are read front to back.

        Files of their own come first, by sample_id. The order changes no token: a commit sorts its rows.
        """
        table = self.read_shard(shard)
        names = [*_COLUMNS_TO_READ, *([KEPT] if KEPT in table.schema.names else [])]
        if table["record"].null_count < len(table):
            record = table["record"].combine_chunks()
            keys = [record.field(name) for name in ("container", "offset_bytes", "row_group", "row")]
            order = pc.sort_indices(
                pa.table([*keys, table["sample_id"]], names=list("abcde")),
                sort_keys=[(name, "ascending", "at_start") for name in "abcde"],
            )
            table = table.take(order)
        return table.select(names)

    def kept_fields(self) -> tuple[pa.Field, ...]:
        """The user's own columns, with their types; read from the first file."""
        with self.opened(self.file_names[0]) as file:
            return kept_fields_of(open_parquet(file).schema_arrow)

    def rows(self) -> Iterator[pa.Table]:
        """All rows, a table a file."""
        for name in self.file_names:
            with self.opened(name) as file:
                yield read_parquet(file)

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file of the plan for reading in this block.

        Raises:
            BadDataError: If what is read turns out to be damaged.
        """
        with self.storage.open(name) as file:  # a place that cannot be reached says so itself
            try:
                yield file
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the system's own word
                raise BadDataError(
                    f"plan {self.storage.url(name)}: expected to read it whole, got: {error}. "
                    "Try again; if it stays so, the file is damaged: copy it again from where it was written."
                ) from error

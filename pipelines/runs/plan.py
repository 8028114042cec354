"""Plan a run: every input once, each in its shard, written before any work begins and never changed.

Listing and planning stream: entries are spilled to disk as they are listed, dealt into files by ranges of
shards, and each file is sorted on its own, so a billion inputs need the memory of one file. Workers read
their own rows only: the file's name says which shards it holds, and its row groups are pruned by the shard
column.

The plan's hash covers every row in order; equal inputs and settings give equal files, byte for byte.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import BadDataError, UsageError
from pipelines.parquet_files import open_parquet, read_parquet, read_rows_equal, to_parquet
from pipelines.readers import InputEntry
from pipelines.runs.listing_spill import COMPRESSED, ListingSpill
from pipelines.runs.run_layout import plan_file, shards_of_plan_file
from pipelines.storage import Storage
from schemas.plan import KEPT, kept_fields_of, plan_schema, shard_of
from schemas.versions import PLAN

#: Rows of one plan file; one file is the most that planning holds in memory (about 400 bytes a row).
ROWS_PER_PLAN_FILE = 2_000_000

#: What the first stage reads of a plan; `kept` passes through.
_COLUMNS_TO_READ = ("sample_id", "uri", "size_bytes", "etag_or_mtime", "record")

_LARGEST_DEFAULT_SHARD = 4096
_MOST_SHARDS_OF_A_SMALL_RUN = 8
_SMALLEST_DEFAULT_SHARD = 32


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


def default_num_shards(num_inputs: int) -> int:
    """Shards for a number of inputs when the user names none.

    One shard for every 4,096 inputs (a few MB of tokens, minutes of work on a CPU); small runs get up to 8
    shards of at least 32 inputs, so that an interruption costs an eighth of the work.
    """
    by_size = -(-num_inputs // _LARGEST_DEFAULT_SHARD)
    for_resuming = min(_MOST_SHARDS_OF_A_SMALL_RUN, num_inputs // _SMALLEST_DEFAULT_SHARD)
    return max(1, by_size, for_resuming)


def build_plan(
    entries: Iterable[InputEntry],
    *,
    folder: Path,
    num_shards: int | None = None,
    rows_per_file: int = ROWS_PER_PLAN_FILE,
) -> DraftPlan:
    """List the inputs and deal them to shards.

    Args:
        entries: The listing; read once, as a stream.
        folder: An empty folder of this machine for the plan's files.
        num_shards: Shards, >= 1. Default: `default_num_shards`.
        rows_per_file: Rows a plan file holds on average, >= 1.

    Returns:
        The plan, with its files in `folder`.

    Raises:
        UsageError: If there is no input at all, or a kept column has values of several types.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        listing = ListingSpill(entries, Path(scratch))
        if listing.num_rows == 0:
            raise UsageError(
                "inputs: expected at least one picture, got none. Check the folder or the pattern; "
                "a picture of unknown extension can be given by its own name."
            )
        num_shards = num_shards or default_num_shards(listing.num_rows)
        shards_per_file = max(1, num_shards * rows_per_file // listing.num_rows)
        dealt = _deal(listing, num_shards, shards_per_file, Path(scratch))
        digest = hashlib.sha256(_hashed_schema(listing.kept_fields))
        names = []
        num_inputs = 0
        for index, source in enumerate(dealt):
            first = index * shards_per_file
            last = min(first + shards_per_file, num_shards) - 1
            table = _sorted_once(source)
            num_inputs += table.num_rows
            _update_hash(digest, table)
            names.append(plan_file(first, last, num_shards))
            (folder / names[-1]).write_bytes(to_parquet(table))
    summary = PlanSummary(
        sha256=digest.hexdigest(),
        num_inputs=num_inputs,
        num_shards=num_shards,
        num_doubles=listing.num_rows - num_inputs,
    )
    return DraftPlan(summary=summary, folder=folder, file_names=tuple(names))


def _deal(listing: ListingSpill, num_shards: int, shards_per_file: int, scratch: Path) -> list[Path]:
    """Deal the rows into one file for each range of shards, unsorted."""
    schema = plan_schema(listing.kept_fields)
    num_files = -(-num_shards // shards_per_file)
    targets = [scratch / f"dealt-{index}.arrow" for index in range(num_files)]
    writers = [pa.ipc.new_file(str(target), schema, options=COMPRESSED) for target in targets]
    for batch in listing.batches():
        shards = [shard_of(key, num_shards) for key in batch["shard_key"].to_pylist()]
        rows = pa.Table.from_batches([batch]).append_column("shard", pa.array(shards, pa.int32()))
        rows = rows.select(schema.names).cast(schema)
        file_of_row = pc.divide(rows["shard"], shards_per_file)
        for file_index in pc.unique(file_of_row).to_pylist():
            writers[file_index].write_table(rows.filter(pc.equal(file_of_row, file_index)))
    for writer in writers:
        writer.close()
    return targets


def _sorted_once(source: Path) -> pa.Table:
    """The rows of a file by shard and sample_id, each input once."""
    with pa.memory_map(str(source)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        table = table.sort_by([("shard", "ascending"), ("sample_id", "ascending")])
        ids = table["sample_id"].combine_chunks()
        if len(ids) > 1:
            is_new = pc.not_equal(ids[1:], ids[:-1])
            table = table.filter(pa.concat_arrays([pa.array([True]), is_new]))
        return table.combine_chunks()


def _hashed_schema(kept_fields: Sequence[pa.Field]) -> bytes:
    """What the plan's hash begins with: the version, and names and types of the user's own columns."""
    return "\n".join([PLAN, *(f"{field.name}\t{field.type}" for field in kept_fields), ""]).encode()


def _update_hash(digest: "hashlib._Hash", table: pa.Table) -> None:
    """Add the rows to the plan's hash, one line each; where it has records or kept columns, these too."""
    columns = [
        pc.fill_null(table[name].cast(pa.string()), "")
        for name in ("shard", "sample_id", "uri", "size_bytes", "etag_or_mtime")
    ]
    lines = pc.binary_join_element_wise(*columns, "\t")
    further = [name for name in ("record", KEPT) if name in table.schema.names and table[name].null_count < len(table)]
    for line, row in zip(lines.to_pylist(), table.select(further).to_pylist() or repeat({}), strict=False):
        digest.update(line.encode())
        if any(row.values()):
            digest.update(b"\t" + json.dumps(row, default=str, sort_keys=True).encode())
        digest.update(b"\n")

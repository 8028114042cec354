"""Plan a run: list the inputs once, and deal each to its shard.

Listing and planning stream: entries are spilled to disk as they are listed, dealt into files by ranges of
shards, and each file is sorted on its own, so a billion inputs need the memory of one file.

The plan's hash covers every row in order; equal inputs and settings give equal files, byte for byte.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UsageError
from pipelines.parquet_files import to_parquet
from pipelines.readers import InputEntry
from pipelines.runs.listing_spill import COMPRESSED, ListingSpill
from pipelines.runs.plan import DraftPlan, PlanSummary
from pipelines.runs.run_layout import plan_file
from schemas.plan import KEPT, plan_schema, shard_of
from schemas.versions import PLAN

#: Rows of one plan file; one file is the most that planning holds in memory (about 400 bytes a row).
ROWS_PER_PLAN_FILE = 2_000_000

_LARGEST_DEFAULT_SHARD = 4096
_MOST_SHARDS_OF_A_SMALL_RUN = 8
_SMALLEST_DEFAULT_SHARD = 32


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

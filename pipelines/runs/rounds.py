"""What came after a run: its retries and extensions, in order, and what of each is still to do.

Each has its own plan file, written before the round is claimed and never changed. Engines see a round as a plan like
any other, with fewer rows (`RoundPlan`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import BadDataError
from pipelines.parquet_files import open_parquet, read_parquet, read_rows_equal, to_parquet
from pipelines.runs.plan import Plan
from pipelines.runs.run_layout import (
    DATA_FOLDER,
    QUARANTINE_FOLDER,
    ROUNDS_FOLDER,
    data_part,
    retry_part,
    round_file,
    round_of_part,
)
from pipelines.storage import Storage
from schemas.rounds import Round
from schemas.tokens import TokensMetadata


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan(Plan):
    """The rows of one round, read by shard like those of the run."""

    def read_shard(self, shard: int) -> pa.Table:
        """The round's rows in one shard, sorted by sample_id; often none."""
        (name,) = self.file_names
        with self.opened(name) as file:
            return read_rows_equal(file, column="shard", value=shard)

    def shards(self) -> list[int]:
        """Shards the round has rows in, in order."""
        (name,) = self.file_names
        with self.opened(name) as file:
            return sorted(pc.unique(read_parquet(file, columns=["shard"])["shard"]).to_pylist())


def read_rounds(storage: Storage) -> tuple[Round, ...]:
    """All rounds of a run, in order.

    Raises:
        BadDataError: If one in the middle is lost.
        SchemaError: If one is damaged.
    """
    names = [name for name in storage.names(ROUNDS_FOLDER) if name.endswith(".json")]
    expected = [round_file(number) for number in range(1, len(names) + 1)]
    if [f"{ROUNDS_FOLDER}/{name}" for name in names] != expected:
        raise BadDataError(
            f"rounds of {storage.url()}: expected {', '.join(expected)}, got {', '.join(names)}. "
            "Copy the missing file from where the run was written."
        )
    rounds = []
    for path in expected:
        text = storage.read_bytes(path).decode(errors="replace")
        rounds.append(Round.from_json(text, where=storage.url(path)))
    return tuple(rounds)


def open_round_plan(storage: Storage, one: Round) -> RoundPlan:
    """The plan of a round."""
    return RoundPlan(storage=storage, num_shards=one.num_shards, file_names=(one.plan_path,))


def planned_rows(plan: Plan, rounds: Sequence[Round], shard: int) -> pa.Table:
    """Every input that a shard holds, as last planned: an extension's row takes the place of the one before it.

    Args:
        plan: The plan of the run.
        rounds: Rounds to take into account.
        shard: A shard of the run or of one of the rounds.
    """
    tables = [plan.read_shard(shard)] if shard < plan.num_shards else []
    for one in rounds:
        if one.kind == "extend":
            tables.append(open_round_plan(plan.storage, one).read_shard(shard))
    rows = tables[0]
    for newer in tables[1:]:
        if newer.num_rows:
            older = rows.filter(pc.invert(pc.is_in(rows["sample_id"], value_set=newer["sample_id"].combine_chunks())))
            rows = pa.concat_tables([older, newer]).sort_by("sample_id")
    return rows


def publish_table(storage: Storage, number: int, what: str, table: pa.Table) -> tuple[str, str]:
    """Write a table of a round under a name that its content decides; whoever else does so writes the same.

    A round that was never claimed leaves such a file behind; nothing refers to it.

    Returns:
        Path and sha256.
    """
    data = to_parquet(table)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{ROUNDS_FOLDER}/{number:05d}-{what}-{sha256[:16]}.parquet"
    storage.create(path, data)
    return path, sha256


def claim_round(storage: Storage, one: Round) -> Round:
    """Claim a round; another command that was faster has its round done instead.

    Returns:
        The round that now has this number.
    """
    path = round_file(one.number)
    if storage.create(path, one.to_json().encode()):
        return one
    return Round.from_json(storage.read_bytes(path).decode(errors="replace"), where=storage.url(path))


def missing_shards(storage: Storage, one: Round) -> list[int]:
    """Shards of a round that are not committed yet, in order."""
    return missing_among(storage, one, open_round_plan(storage, one).shards())


def missing_among(storage: Storage, one: Round, shards: Iterable[int]) -> list[int]:
    """Those of some shards of a round that are not committed yet, in the given order."""
    there = set(storage.names(DATA_FOLDER))
    if one.kind == "retry":
        return [shard for shard in shards if retry_part(shard, one.number).rpartition("/")[2] not in there]
    missing = []
    for shard in shards:
        path = data_part(shard)
        is_there = path.rpartition("/")[2] in there
        if not is_there or (shard < one.first_new_shard and round_in_footer(storage, path) < one.number):
            missing.append(shard)
    return missing


def round_in_footer(storage: Storage, path: str) -> int:
    """The round that wrote a data file last."""
    with storage.open(path) as file:
        footer = open_parquet(file).metadata.metadata
    return TokensMetadata.from_footer(footer, where=storage.url(path)).round


def parts_by_shard(storage: Storage, folder: str = DATA_FOLDER) -> dict[int, list[str]]:
    """Shard -> its parts in a folder, the run's own first, then those of retries and extensions in order."""
    found: dict[int, list[tuple[int, str]]] = {}
    for name in storage.names(folder):
        part = round_of_part(name)
        if part is not None:
            found.setdefault(part[0], []).append((part[1], f"{folder}/{name}"))
    return {shard: [path for _, path in sorted(parts)] for shard, parts in found.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOutcome:
    """Where the rows of a shard are now.

    Attributes:
        good_ids: sample_ids of each data file, by path.
        quarantined: sample_id -> latest quarantine row of those that are in no data file.
    """

    good_ids: Mapping[str, list[str]]
    quarantined: Mapping[str, Mapping[str, object]]


def shard_outcome(storage: Storage, data_paths: list[str], quarantine_paths: list[str]) -> ShardOutcome:
    """Read where a shard's rows are; the last record of a row counts.

    Args:
        storage: Where the run is.
        data_paths: The shard's data files.
        quarantine_paths: Its quarantine files, oldest first.
    """
    records: dict[str, Mapping[str, object]] = {}
    for path in quarantine_paths:
        with storage.open(path) as file:
            records.update({row["sample_id"]: row for row in read_parquet(file).to_pylist()})
    good: dict[str, list[str]] = {}
    # Without any record nothing can be quarantined, and ids are read only to take records away.
    for path in data_paths:
        good[path] = ids_in(storage, path) if records else []
    done = {sample_id for ids in good.values() for sample_id in ids}
    return ShardOutcome(good_ids=good, quarantined={i: row for i, row in records.items() if i not in done})


def quarantined_now(storage: Storage) -> dict[int, dict[str, Mapping[str, object]]]:
    """Shard -> sample_id -> latest quarantine row, of all rows that are in no data file."""
    data, quarantine = parts_by_shard(storage), parts_by_shard(storage, QUARANTINE_FOLDER)
    found = {}
    for shard in sorted(data):
        rows = shard_outcome(storage, data[shard], quarantine.get(shard, [])).quarantined
        if rows:
            found[shard] = dict(rows)
    return found


def ids_in(storage: Storage, path: str) -> list[str]:
    """sample_ids of a data or quarantine file."""
    with storage.open(path) as file:
        ids: list[str] = read_parquet(file, columns=["sample_id"])["sample_id"].to_pylist()
    return ids

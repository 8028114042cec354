"""Plan an extension: what the inputs have now that the run has not, and what they have lost.

New inputs get shards of their own, numbered on from those of the run. Changed inputs (another size, stamp, place in
their container or kept column) stay in the shard they are in. Inputs that are gone are listed, and their tokens kept:
what has been made is deleted by nobody but its owner.

The listing is compared shard by shard with the plan; in memory at once are one plan file, and all rows that are new,
changed, or were so in an earlier extension (about 400 bytes a row).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.errors import UsageError
from pipelines.runs.plan import DraftPlan, Plan
from pipelines.runs.plan_building import default_num_shards
from pipelines.runs.rounds import claim_round, open_round_plan, publish_table
from schemas.plan import shard_of
from schemas.rounds import Round

_Row = Mapping[str, object]
_DELETED_SCHEMA = pa.schema(
    [pa.field("sample_id", pa.string(), nullable=False), pa.field("uri", pa.string(), nullable=False)]
)


@dataclass(kw_only=True, slots=True)
class InputChanges:
    """How a listing differs from the plan of a run and its extensions.

    Attributes:
        new: Rows of inputs that were never planned; `shard` is where the run's own plan would put them.
        changed: Rows of inputs that differ; `shard` is the one they are in.
        deleted: `sample_id` and `uri` of inputs that are gone.
    """

    new: list[pa.Table] = field(default_factory=list)
    changed: list[pa.Table] = field(default_factory=list)
    deleted: list[dict[str, str]] = field(default_factory=list)

    @property
    def num_new(self) -> int:
        """Inputs that were never planned."""
        return sum(table.num_rows for table in self.new)

    @property
    def num_changed(self) -> int:
        """Inputs whose row differs."""
        return sum(table.num_rows for table in self.changed)

    def __str__(self) -> str:
        """The three numbers."""
        return f"{self.num_new} added, {len(self.deleted)} removed, {self.num_changed} changed"


def input_changes(plan: Plan, rounds: Sequence[Round], draft: DraftPlan) -> InputChanges:
    """Compare a listing with what the run was planned with.

    Args:
        plan: The plan of the run.
        rounds: Its rounds so far.
        draft: The listing, dealt to as many shards as the run's own plan has.

    Raises:
        UsageError: If the listing has other columns than the plan.
    """
    extended = _rows_of_extensions(plan, rounds)
    changes = InputChanges()
    seen_extended: set[str] = set()
    for shard, rows in _draft_shards(draft, plan.num_shards):
        planned = plan.read_shard(shard)
        if planned.schema.names != rows.schema.names:
            raise UsageError(
                f"columns of the inputs: expected {', '.join(planned.schema.names)} as in the run's plan, "
                f"got {', '.join(rows.schema.names)}. Use a new --out."
            )
        before = {str(row["sample_id"]): row for row in planned.to_pylist()}
        new: list[int] = []
        changed: list[int] = []
        places: list[int] = []
        now = rows.to_pylist()
        for index, row in enumerate(now):
            sample_id = str(row["sample_id"])
            known = extended.get(sample_id) or before.get(sample_id)
            if sample_id in extended:
                seen_extended.add(sample_id)
            if known is None:
                new.append(index)
            elif _content(known) != _content(row):
                changed.append(index)
                places.append(int(str(known["shard"])))
        if new:
            changes.new.append(rows.take(new))
        if changed:
            changes.changed.append(_with_shards(rows.take(changed), places))
        ids = {str(row["sample_id"]) for row in now}
        gone = [row for sample_id, row in before.items() if sample_id not in ids]
        changes.deleted += [{"sample_id": str(row["sample_id"]), "uri": str(row["uri"])} for row in gone]
        seen_extended |= {str(row["sample_id"]) for row in gone} & extended.keys()
    for sample_id, row in extended.items():
        if sample_id not in seen_extended:
            changes.deleted.append({"sample_id": sample_id, "uri": str(row["uri"])})
    changes.deleted.sort(key=lambda row: row["sample_id"])
    return changes


def plan_extension(
    plan: Plan, rounds: Sequence[Round], draft: DraftPlan, *, num_new_shards: int | None = None
) -> Round | None:
    """Claim an extension of a run.

    Args:
        plan: The plan of the run; its storage is the run's.
        rounds: Its rounds so far, all of them finished.
        draft: The listing, dealt to as many shards as the run's own plan has.
        num_new_shards: Shards for new inputs. Default: `default_num_shards`.

    Returns:
        The round, or None if nothing has changed since the last one.
    """
    changes = input_changes(plan, rounds, draft)
    number = len(rounds) + 1
    first = rounds[-1].num_shards if rounds else plan.num_shards
    num_new_shards = (num_new_shards or default_num_shards(changes.num_new)) if changes.num_new else 0
    if not changes.num_new and not changes.num_changed and not _has_other_deletions(rounds, changes):
        return None
    new = [_dealt(table, first, num_new_shards, plan.num_shards) for table in changes.new]
    tables = [*changes.changed, *new]
    rows = pa.concat_tables(tables) if tables else plan.read_shard(0).slice(0, 0)
    rows = rows.sort_by([("shard", "ascending"), ("sample_id", "ascending")])
    path, sha256 = publish_table(plan.storage, number, "extend", rows)
    deleted_path = None
    if changes.deleted:
        deleted = pa.Table.from_pylist(changes.deleted, schema=_DELETED_SCHEMA)
        deleted_path, _ = publish_table(plan.storage, number, "deleted", deleted)
    return claim_round(
        plan.storage,
        Round(
            number=number,
            kind="extend",
            plan_path=path,
            plan_sha256=sha256,
            num_rows=rows.num_rows,
            first_new_shard=first,
            num_shards=first + num_new_shards,
            num_new=changes.num_new,
            num_changed=changes.num_changed,
            num_deleted=len(changes.deleted),
            deleted_path=deleted_path,
        ),
    )


def _rows_of_extensions(plan: Plan, rounds: Sequence[Round]) -> dict[str, _Row]:
    """sample_id -> its latest row, of what extensions have planned."""
    found: dict[str, _Row] = {}
    for one in rounds:
        if one.kind == "extend":
            for table in open_round_plan(plan.storage, one).rows():
                found.update({row["sample_id"]: row for row in table.to_pylist()})
    return found


def _draft_shards(draft: DraftPlan, num_shards: int) -> Iterator[tuple[int, pa.Table]]:
    """Each shard of a listing with its rows, often none; the files are sorted by shard."""
    next_shard = 0
    empty: pa.Table | None = None
    for table in draft.rows():
        empty = table.slice(0, 0)
        shards = table["shard"].to_numpy()
        last = int(shards[-1]) if len(shards) else next_shard - 1
        for shard in range(next_shard, last + 1):
            start, stop = np.searchsorted(shards, [shard, shard + 1])
            yield shard, table.slice(start, stop - start)
        next_shard = last + 1
    for shard in range(next_shard, num_shards):
        if empty is not None:
            yield shard, empty


def _content(row: _Row) -> dict[str, object]:
    """What makes an input another one when it differs: everything but its shard."""
    return {name: value for name, value in row.items() if name != "shard"}


def _dealt(table: pa.Table, first: int, num_new_shards: int, num_run_shards: int) -> pa.Table:
    """Deal new rows to the new shards; rows that the run's plan would keep together stay so where that is possible."""
    if num_new_shards <= num_run_shards:
        shards = [first + int(shard) % num_new_shards for shard in table["shard"].to_pylist()]
    else:
        shards = [first + shard_of(sample_id, num_new_shards) for sample_id in table["sample_id"].to_pylist()]
    return _with_shards(table, shards)


def _with_shards(table: pa.Table, shards: Sequence[int]) -> pa.Table:
    index = table.schema.get_field_index("shard")
    return table.set_column(index, table.schema.field(index), pa.array(shards, pa.int32()))


def _has_other_deletions(rounds: Sequence[Round], changes: InputChanges) -> bool:
    """Whether other inputs are gone than those that the last extension listed."""
    extensions = [one for one in rounds if one.kind == "extend"]
    return len(changes.deleted) != (extensions[-1].num_deleted if extensions else 0)

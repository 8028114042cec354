"""Claim the place of a run, or resume the run that is there: the same command twice works once.

Order matters: `config.json` first, created only if absent. It holds the plan's hash, so whoever writes the
plan files after that writes the same bytes, and a process that dies in between is simply repeated.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from pipelines.errors import BadDataError, UsageError
from pipelines.parquet_files import to_parquet
from pipelines.runs.commit import committed_shards
from pipelines.runs.extension import input_changes
from pipelines.runs.plan import DraftPlan, Plan
from pipelines.runs.rounds import missing_shards, read_rounds
from pipelines.runs.run_config import RunConfig, differences
from pipelines.runs.run_layout import CODEBOOK, CONFIG, DATA_FOLDER
from pipelines.storage import Storage

#: Above this the inputs of two plans are compared by number only.
_MOST_ROWS_COMPARED = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedRun:
    """A run that this process may work on.

    Attributes:
        config: Its config; the stored one if the run was there before.
        plan: Its published plan.
        committed: Shards that are done.
    """

    config: RunConfig
    plan: Plan
    committed: frozenset[int]

    @property
    def missing(self) -> list[int]:
        """Shards still to do, in order."""
        return [shard for shard in range(self.plan.num_shards) if shard not in self.committed]


def claim_run(storage: Storage, config: RunConfig, draft: DraftPlan, codebook: pa.Table) -> ClaimedRun:
    """Start a run in an empty place, or resume the equal run that is there.

    Args:
        storage: The place.
        config: The config this command resolves to.
        draft: The plan of its inputs.
        codebook: `schemas.codebook_table` of the model's codebook.

    Raises:
        UsageError: If another run is there (the message has every difference), or the place cannot be written
            to.
        SchemaError: If the `config.json` there is no run's.
    """
    stored = read_config(storage) if storage.exists(CONFIG) else None
    if stored is None:
        _refuse_foreign_data(storage)
        storage.prepare()
        if not _create_config(storage, config):
            stored = read_config(storage)
    if stored is not None:
        _refuse_other_settings(storage, stored, config, draft)
    committed = committed_shards(storage)
    if stored is not None and len(committed) < stored.settings.num_shards:
        refuse_other_versions(storage, stored, config)
        storage.prepare()
    if not set(draft.file_names) <= set(storage.names()):
        draft.publish(storage)
    if not storage.exists(CODEBOOK):
        storage.create(CODEBOOK, to_parquet(codebook))
    plan = Plan.open(storage, config.settings.num_shards)
    return ClaimedRun(config=stored or config, plan=plan, committed=committed)


def claim_again(
    storage: Storage, config: RunConfig, draft: DraftPlan, codebook: pa.Table, *, extend: bool
) -> ClaimedRun:
    """Go on with a run that has been extended, or is to be.

    Args:
        storage: The place; the run is there.
        config: The config this command resolves to.
        draft: The plan of its inputs, dealt to as many shards as the run's own.
        codebook: `schemas.codebook_table` of the model's codebook.
        extend: Whether other inputs than those planned so far are what the command is about.

    Raises:
        UsageError: If settings or versions differ from the run's; or the inputs do, without `extend`. The message
            has every difference.
    """
    stored, rounds = read_config(storage), read_rounds(storage)
    lines = differences(_without_plan(stored), _without_plan(config))
    plan_is_lost = False
    try:
        plan = Plan.open(storage, stored.settings.num_shards)
    except BadDataError:
        plan_is_lost = True
    if plan_is_lost and draft.summary.sha256 != stored.settings.plan_sha256:
        raise UsageError(
            f"run {storage.url()}: expected a run whose plan was written, got one that was stopped before, "
            f"and other inputs since. Delete {storage.url(CONFIG)} and repeat the command: nothing is lost."
        )
    if plan_is_lost:
        return claim_run(storage, config, draft, codebook)
    num_shards = draft.summary.num_shards
    if num_shards != plan.num_shards:
        lines.append(f"num_shards: {plan.num_shards} there, {num_shards} now")
    elif not extend:
        changes = input_changes(plan, rounds, draft)
        if changes.new or changes.changed:
            lines.insert(0, f"inputs: {changes} (--extend takes them in)")
    if lines:
        raise _other_run(storage, lines)
    claimed = ClaimedRun(config=stored, plan=plan, committed=committed_shards(storage))
    if extend or claimed.missing or any(missing_shards(storage, one) for one in rounds):
        refuse_other_versions(storage, stored, config)
        storage.prepare()
    if not storage.exists(CODEBOOK):
        storage.create(CODEBOOK, to_parquet(codebook))
    return claimed


def open_claimed(storage: Storage, config: RunConfig) -> ClaimedRun:
    """A run that is there, to go on with under its own plan.

    Args:
        storage: The place.
        config: What this command resolves the run's own arguments to, on this machine.

    Raises:
        UsageError: If there is no run, or the model, decoder or a version is another one by now.
        BadDataError: If its plan is damaged.
    """
    stored = read_config(storage)
    lines = differences(_without_plan(stored), _without_plan(config))
    if lines:
        raise _other_run(storage, lines)
    refuse_other_versions(storage, stored, config)
    config = stored
    plan = Plan.open(storage, config.settings.num_shards)
    return ClaimedRun(config=config, plan=plan, committed=committed_shards(storage))


def read_config(storage: Storage) -> RunConfig:
    """The config of the run at a place.

    Raises:
        UsageError: If there is none.
        SchemaError: If the file is no run's config.
    """
    if not storage.exists(CONFIG):
        raise UsageError(
            f"run {storage.url()}: expected a folder written by `spae tokenize`, got no {CONFIG} in it. Check the path."
        )
    text = storage.read_bytes(CONFIG).decode(errors="replace")
    return RunConfig.from_json(text, where=storage.url(CONFIG))


def _create_config(storage: Storage, config: RunConfig) -> bool:
    """The claim itself, and the first thing written: where a place that cannot be written to shows."""
    try:
        return storage.create(CONFIG, config.to_json().encode())
    except OSError as error:
        raise UsageError(
            f"output {storage.url()}: expected a place that can be written to, got: "
            f"{error.strerror or error!r}. Check that the bucket or disk exists, and your rights."
        ) from error


def _refuse_foreign_data(storage: Storage) -> None:
    names = storage.names(DATA_FOLDER)
    if names:
        raise UsageError(
            f"output {storage.url()}: expected an empty place or a run of ours, got {len(names)} files in "
            f"{DATA_FOLDER}/ without a {CONFIG}. Use a new --out."
        )


def _refuse_other_settings(storage: Storage, stored: RunConfig, config: RunConfig, draft: DraftPlan) -> None:
    there, now = asdict(stored.settings), asdict(config.settings)
    lines = []
    if there["plan_sha256"] != now["plan_sha256"]:
        lines.append(_input_difference(storage, stored, draft))
    for key in ("plan_sha256", "num_inputs"):
        del there[key], now[key]
    lines += differences(there, now)
    if lines:
        raise _other_run(storage, lines)


def _without_plan(config: RunConfig) -> dict[str, object]:
    """Settings that a run and its extensions share."""
    own = ("plan_sha256", "num_inputs", "num_shards")
    return {name: value for name, value in asdict(config.settings).items() if name not in own}


def _other_run(storage: Storage, lines: list[str]) -> UsageError:
    return UsageError(
        f"run {storage.url()}: expected the inputs and settings it was started with, got others:\n  "
        + "\n  ".join(lines)
        + "\nUse a new --out for this command, or repeat the first one to go on with that run "
        f"(its arguments: --config {storage.url(CONFIG)})."
    )


def refuse_other_versions(storage: Storage, stored: RunConfig, config: RunConfig) -> None:
    """Refuse libraries of other versions than those that made the shards already there."""
    lines = differences(stored.versions, config.versions)
    if lines:
        raise UsageError(
            f"run {storage.url()}: expected the versions it was started with for the shards still missing, "
            "got others:\n  " + "\n  ".join(lines) + "\nInstall those versions to finish it, or use a new --out."
        )


def _input_difference(storage: Storage, stored: RunConfig, draft: DraftPlan) -> str:
    """One line on how the inputs differ: how many were added, removed, changed."""
    num_there, num_now = stored.settings.num_inputs, draft.summary.num_inputs
    numbers = f"inputs: {num_there} there, {num_now} now"
    if max(num_there, num_now) > _MOST_ROWS_COMPARED:
        return numbers
    try:
        there = _stamps(Plan.open(storage, stored.settings.num_shards).rows())
    except BadDataError:  # The run was interrupted before its plan was written.
        return numbers
    now = _stamps(draft.rows())
    added, removed = len(now.keys() - there.keys()), len(there.keys() - now.keys())
    changed = sum(now[uri] != there[uri] for uri in now.keys() & there.keys())
    if not added and not removed and not changed:
        return f"{numbers}, the same ones dealt to other shards"
    return f"{numbers} ({added} added, {removed} removed, {changed} changed)"


def _stamps(tables: Iterable[pa.Table]) -> dict[str, tuple[int | None, str | None]]:
    stamps = {}
    for table in tables:
        columns = (table[name].to_pylist() for name in ("uri", "size_bytes", "etag_or_mtime"))
        stamps.update({uri: (size, stamp) for uri, size, stamp in zip(*columns, strict=True)})
    return stamps

"""Close a run whose shards are all committed: count, hash, write `manifest.json`, then `_SUCCESS`."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipelines.errors import BadDataError, ShardsFailedError
from pipelines.parquet_files import read_parquet
from pipelines.runs.claim import ClaimedRun
from pipelines.runs.commit import part_entry
from pipelines.runs.rounds import parts_by_shard, quarantined_now, read_rounds
from pipelines.runs.run_layout import (
    CODEBOOK,
    DATA_FOLDER,
    MANIFEST,
    QUARANTINE_FOLDER,
    SUCCESS,
    quarantine_part,
    round_of_part,
)
from pipelines.stages.read_inputs import DAMAGED_CONTAINER, ReadInputs
from pipelines.storage import Storage
from schemas.manifest import Manifest, PartEntry, RoundEntry, StageTiming
from schemas.rounds import Round

#: Reason of rows that stand for what cannot be read of a container.
DAMAGED_REASON = f"{ReadInputs.name}/{DAMAGED_CONTAINER}"

#: Reasons named in a message, most common first.
_MOST_REASONS_SHOWN = 5


def finish_run(
    run: ClaimedRun,
    *,
    storage: Storage,
    known_parts: Iterable[PartEntry],
    num_processed: int,
    wall_seconds: float,
    stages: Mapping[str, StageTiming],
    bottleneck: str | None,
    max_quarantined_fraction: float,
) -> Manifest:
    """Write the manifest and `_SUCCESS`.

    Args:
        run: A run with no shard missing.
        storage: Where the run is.
        known_parts: Shards committed by this process; their files need not be read again.
        num_processed: Rows this process handled.
        wall_seconds: Time it took.
        stages: Timing of each stage.
        bottleneck: The stage that set the pace.
        max_quarantined_fraction: The error budget, in [0, 1].

    Raises:
        BadDataError: If more than the budget is in quarantine; nothing is written then.
    """
    rounds = read_rounds(storage)
    known = {part.path: part for part in known_parts}
    parts = _parts(run, storage, rounds, known)
    num_planned = run.config.settings.num_inputs + sum(one.num_new for one in rounds)
    if rounds:
        reasons = reasons_now(storage)
        num_quarantined = sum(reasons.values())
    else:
        reasons = quarantine_reasons(storage, parts)
        num_quarantined = sum(part.num_quarantined for part in parts)
    refuse_over_budget(reasons, num_planned, max_quarantined_fraction)
    num_ok = sum(part.num_rows for part in parts)
    manifest = Manifest(
        num_planned=num_planned,
        num_ok=num_ok,
        num_quarantined=num_quarantined,
        quarantined_by_reason=reasons,
        parts=parts,
        rounds=tuple(_round_entry(storage, one) for one in rounds),
        bytes_per_image=round(sum(part.size_bytes for part in parts) / num_ok, 1) if num_ok else 0.0,
        plan_sha256=run.config.settings.plan_sha256,
        model_sha256=run.config.settings.model_sha256,
        codebook_sha256=run.config.settings.codebook_sha256,
        codebook_table_sha256=hashlib.sha256(storage.read_bytes(CODEBOOK)).hexdigest(),
        num_processed=num_processed,
        wall_seconds=round(wall_seconds, 3),
        images_per_second=round(num_processed / wall_seconds, 2) if wall_seconds > 0 else 0.0,
        stages=stages,
        bottleneck=bottleneck,
    )
    storage.replace(MANIFEST, manifest.to_json().encode())
    storage.replace(SUCCESS, b"")
    storage.clean()
    return manifest


def is_finished(storage: Storage, rounds: Sequence[Round]) -> bool:
    """Whether the manifest is there and covers all rounds; then nothing is left to do."""
    if not storage.exists(SUCCESS) or not storage.exists(MANIFEST):
        return False
    return len(read_manifest(storage).rounds) == len(rounds)


def reasons_now(storage: Storage) -> dict[str, int]:
    """Rows that are in quarantine and in no data file, by `stage/error_class`, most common first."""
    records = (row for rows in quarantined_now(storage).values() for row in rows.values())
    return dict(_sorted(Counter(f"{row['stage']}/{row['error_class']}" for row in records)))


def _parts(
    run: ClaimedRun, storage: Storage, rounds: Sequence[Round], known: Mapping[str, PartEntry]
) -> tuple[PartEntry, ...]:
    """The entry of every data file: known from its commit, or read."""
    num_shards = rounds[-1].num_shards if rounds else run.plan.num_shards
    # What an extension rebuilt may have been committed by this process before it was.
    rebuilt = {part.shard for part in known.values()} if any(one.num_changed for one in rounds) else set()
    paths = parts_by_shard(storage)
    entries = []
    for shard in range(num_shards):
        for path in paths.get(shard, []):
            quarantine = path.replace(DATA_FOLDER, QUARANTINE_FOLDER, 1)
            entry = None if shard in rebuilt else known.get(path)
            entries.append(entry or part_entry(storage, shard, path, quarantine))
    return tuple(entries)


def _round_entry(storage: Storage, one: Round) -> RoundEntry:
    hashes = {}
    for paths in parts_by_shard(storage, QUARANTINE_FOLDER).values():
        for path in paths:
            part = round_of_part(path.rpartition("/")[2])
            if part is not None and part[1] == one.number:
                hashes[path] = hashlib.sha256(storage.read_bytes(path)).hexdigest()
    return RoundEntry(
        number=one.number,
        kind=one.kind,
        num_rows=one.num_rows,
        num_new=one.num_new,
        num_changed=one.num_changed,
        num_deleted=one.num_deleted,
        deleted_path=one.deleted_path,
        plan_sha256=one.plan_sha256,
        quarantine_sha256=hashes,
    )


def quarantine_reasons(storage: Storage, parts: Iterable[PartEntry]) -> dict[str, int]:
    """Rows in quarantine by `stage/error_class`, most common first."""
    reasons: Counter[str] = Counter()
    for part in parts:
        if part.num_quarantined:
            with storage.open(quarantine_part(part.shard)) as file:
                rows = read_parquet(file, columns=["stage", "error_class"]).to_pylist()
            reasons.update(f"{row['stage']}/{row['error_class']}" for row in rows)
    return dict(_sorted(reasons))


def refuse_over_budget(reasons: Mapping[str, int], num_planned: int, max_quarantined_fraction: float) -> None:
    """Stop a run that is mostly garbage.

    Args:
        reasons: Rows in quarantine so far, by `stage/error_class`.
        num_planned: Inputs of the plan.
        max_quarantined_fraction: The error budget, in [0, 1].

    Raises:
        BadDataError: If more rows are in quarantine than the budget allows; the message has the commonest
            reasons.
    """
    num_quarantined = sum(reasons.values())
    if num_quarantined <= max_quarantined_fraction * num_planned:
        return
    most_common = ", ".join(f"{reason} {count}" for reason, count in _sorted(reasons)[:_MOST_REASONS_SHOWN])
    raise BadDataError(
        f"quarantined pictures: expected at most {max_quarantined_fraction:.0%} of {num_planned}, "
        f"got {num_quarantined} ({most_common}). "
        "Look at the quarantine and fix the inputs, or repeat the command with a higher "
        "--max-quarantined-fraction; what is committed is kept."
    )


def read_manifest(storage: Storage) -> Manifest:
    """The manifest of a finished run.

    Raises:
        SchemaError: If the file there is none.
    """
    text = storage.read_bytes(MANIFEST).decode(errors="replace")
    return Manifest.from_json(text, where=storage.url(MANIFEST))


def refuse_damaged_containers(manifest: Manifest) -> None:
    """End a run with exit code 1 if inputs could not be read to their end: unknown pictures are missing.

    The run is complete all the same, and each of them is a row of the quarantine.

    Raises:
        ShardsFailedError: If there were such inputs.
    """
    num_damaged = manifest.quarantined_by_reason.get(DAMAGED_REASON, 0)
    if num_damaged:
        raise ShardsFailedError(
            f"containers: expected whole tars, tables and lists, got {num_damaged} places where one could not be "
            f"read ({DAMAGED_REASON} in the quarantine, with reasons). Mend them and tokenize them again; "
            "everything else is in the dataset."
        )


def _sorted(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))

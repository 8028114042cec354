"""Check a run against its own promises: each planned picture once, each file as the manifest says."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import BadDataError
from pipelines.runs.claim import read_config
from pipelines.runs.manifest import read_manifest
from pipelines.runs.plan import Plan
from pipelines.runs.rounds import missing_shards, parts_by_shard, read_rounds
from pipelines.runs.run_layout import (
    CODEBOOK,
    DATA_FOLDER,
    MANIFEST,
    QUARANTINE_FOLDER,
    SUCCESS,
    round_of_part,
)
from pipelines.runs.verify_shard import ShardCheck
from pipelines.storage import Storage
from schemas.manifest import Manifest
from schemas.rounds import Round
from schemas.versions import SchemaError


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What a check found.

    Attributes:
        num_planned: Inputs of the plan.
        num_ok: Rows read from `data/`.
        num_quarantined: Rows read from `quarantine/`.
        num_shards: Shards of the plan.
        problems: One line each; none if the run is right.
    """

    num_planned: int
    num_ok: int
    num_quarantined: int
    num_shards: int
    problems: tuple[str, ...]


def verify_run(storage: Storage) -> VerifyReport:
    """Read the whole run and compare it with its plan, config and manifest.

    Raises:
        UsageError: If there is no run.
        BadDataError: If its plan is damaged.
    """
    config = read_config(storage)
    plan = Plan.open(storage, config.settings.num_shards)
    rounds = read_rounds(storage)
    manifest, problems = _read_manifest(storage, rounds)
    problems += _open_or_damaged_rounds(storage, rounds)
    num_shards = rounds[-1].num_shards if rounds else plan.num_shards
    problems += _stray_files(storage, num_shards, rounds)
    problems += _codebook_problems(storage, manifest)
    check = ShardCheck(storage=storage, config=config, plan=plan, rounds=rounds, manifest=manifest)
    num_planned = num_ok = num_quarantined = 0
    data, quarantine = parts_by_shard(storage), parts_by_shard(storage, QUARANTINE_FOLDER)
    for shard in range(num_shards):
        counts = check.run(shard, data.get(shard, []), quarantine.get(shard, []))
        num_planned, num_ok, num_quarantined = (
            before + count for before, count in zip((num_planned, num_ok, num_quarantined), counts, strict=True)
        )
    problems += check.problems
    if manifest:
        found = (num_planned, num_ok, num_quarantined)
        promised = (manifest.num_planned, manifest.num_ok, manifest.num_quarantined)
        if found != promised:
            problems.append(f"{MANIFEST}: expected planned, ok, quarantined {found} as found, got {promised}")
    return VerifyReport(
        num_planned=num_planned,
        num_ok=num_ok,
        num_quarantined=num_quarantined,
        num_shards=num_shards,
        problems=tuple(problems),
    )


def _read_manifest(storage: Storage, rounds: Sequence[Round]) -> tuple[Manifest | None, list[str]]:
    if not storage.exists(SUCCESS) or not storage.exists(MANIFEST):
        return None, [f"{SUCCESS}: the run is not finished; run the same `spae tokenize` again"]
    try:
        manifest = read_manifest(storage)
    except (SchemaError, ValueError) as error:
        return None, [str(error)]
    if len(manifest.rounds) < len(rounds):
        return None, [f"{MANIFEST}: expected {len(rounds)} rounds, got {len(manifest.rounds)}; {_remedy(rounds[-1])}"]
    return manifest, []


def _remedy(one: Round) -> str:
    command = "spae retry" if one.kind == "retry" else "spae tokenize … --extend"
    return f"repeat `{command}` to finish {one.kind} {one.number}"


def _open_or_damaged_rounds(storage: Storage, rounds: Sequence[Round]) -> Iterator[str]:
    """Plans of rounds that are not as they were written, and rounds with shards left."""
    for one in rounds:
        try:
            got = hashlib.sha256(storage.read_bytes(one.plan_path)).hexdigest()
            left = missing_shards(storage, one) if got == one.plan_sha256 else []
        except (OSError, pa.ArrowException, BadDataError, SchemaError) as error:
            yield f"{one.kind} {one.number}: expected its plan and parts whole, got: {error}"
            continue
        if got != one.plan_sha256:
            yield f"{one.plan_path}: expected sha256 {one.plan_sha256} of its round, got {got}"
        if left:
            yield f"{one.kind} {one.number}: {len(left)} shards are missing; {_remedy(one)}"


def _codebook_problems(storage: Storage, manifest: Manifest | None) -> Iterator[str]:
    if not storage.exists(CODEBOOK):
        yield f"{CODEBOOK}: missing; run the same `spae tokenize` again to restore it"
    elif manifest and (got := hashlib.sha256(storage.read_bytes(CODEBOOK)).hexdigest()) != (
        expected := manifest.codebook_table_sha256
    ):
        yield f"{CODEBOOK}: expected sha256 {expected} of the manifest, got {got}; delete it and run the command again"


def _stray_files(storage: Storage, num_shards: int, rounds: Sequence[Round]) -> Iterator[str]:
    kinds = {one.number: one.kind for one in rounds}
    for folder in (DATA_FOLDER, QUARANTINE_FOLDER):
        for name in storage.names(folder):
            shard, number = round_of_part(name) or (num_shards, 0)
            is_kind_right = number == 0 or f"-{kinds.get(number)}-" in name
            is_rebuilt = folder == DATA_FOLDER and "-extend-" in name  # Changed rows stay in the files they were in.
            if shard >= num_shards or not is_kind_right or is_rebuilt:
                yield f"{folder}/{name}: not a file of this run; take it out"

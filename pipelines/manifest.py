"""Close a run whose shards are all committed: count, hash, write `manifest.json`, then `_SUCCESS`."""

from collections import Counter
from collections.abc import Iterable, Mapping

from pipelines.claim import ClaimedRun
from pipelines.commit import ShardWriter
from pipelines.errors import BadDataError, ShardsFailedError
from pipelines.parquet_files import read_parquet
from pipelines.run_layout import MANIFEST, SUCCESS, quarantine_part
from pipelines.stages.read_inputs import DAMAGED_CONTAINER, ReadInputs
from pipelines.storage import Storage
from schemas.manifest import Manifest, PartEntry, StageTiming

#: Reason of rows that stand for what cannot be read of a container.
DAMAGED_REASON = f"{ReadInputs.name}/{DAMAGED_CONTAINER}"

#: Reasons named in a message, most common first.
_MOST_REASONS_SHOWN = 5


def finish_run(
    run: ClaimedRun,
    writer: ShardWriter,
    *,
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
        writer: The run's writer; reads the shards that other processes committed.
        known_parts: Shards committed by this process; their files need not be read again.
        num_processed: Rows this process handled.
        wall_seconds: Time it took.
        stages: Timing of each stage.
        bottleneck: The stage that set the pace.
        max_quarantined_fraction: The error budget, in [0, 1].

    Raises:
        BadDataError: If more than the budget is in quarantine; nothing is written then.
    """
    known = {part.shard: part for part in known_parts}
    parts = tuple(known.get(shard) or writer.entry(shard) for shard in range(run.plan.num_shards))
    reasons = quarantine_reasons(writer, parts)
    num_quarantined = sum(part.num_quarantined for part in parts)
    num_planned = run.config.settings.num_inputs
    refuse_over_budget(reasons, num_planned, max_quarantined_fraction)
    num_ok = sum(part.num_rows for part in parts)
    manifest = Manifest(
        num_planned=num_planned,
        num_ok=num_ok,
        num_quarantined=num_quarantined,
        quarantined_by_reason=reasons,
        parts=parts,
        bytes_per_image=round(sum(part.size_bytes for part in parts) / num_ok, 1) if num_ok else 0.0,
        plan_sha256=run.config.settings.plan_sha256,
        model_sha256=run.config.settings.model_sha256,
        codebook_sha256=run.config.settings.codebook_sha256,
        num_processed=num_processed,
        wall_seconds=round(wall_seconds, 3),
        images_per_second=round(num_processed / wall_seconds, 2) if wall_seconds > 0 else 0.0,
        stages=stages,
        bottleneck=bottleneck,
    )
    writer.storage.replace(MANIFEST, manifest.to_json().encode())
    writer.storage.replace(SUCCESS, b"")
    writer.storage.clean()
    return manifest


def quarantine_reasons(writer: ShardWriter, parts: Iterable[PartEntry]) -> dict[str, int]:
    """Rows in quarantine by `stage/error_class`, most common first."""
    reasons: Counter[str] = Counter()
    for part in parts:
        if part.num_quarantined:
            with writer.storage.open(quarantine_part(part.shard)) as file:
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

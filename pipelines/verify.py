"""Check a run against its own promises: each planned picture once, each file as the manifest says."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.claim import committed_shards, read_config
from pipelines.parquet_files import read_parquet
from pipelines.plan import Plan
from pipelines.run_config import RunConfig
from pipelines.run_layout import (
    CODEBOOK,
    DATA_FOLDER,
    MANIFEST,
    SUCCESS,
    data_part,
    quarantine_part,
    shard_of_part,
)
from pipelines.storage import Storage
from schemas.manifest import Manifest, PartEntry
from schemas.tokens import TokensMetadata, num_token_layers, token_column, tokens_schema
from schemas.versions import SchemaError

_MOST_IDS_SHOWN = 3


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
    manifest, problems = _read_manifest(storage)
    entries = {entry.shard: entry for entry in manifest.parts} if manifest else {}
    problems += _stray_files(storage, plan.num_shards)
    if not storage.exists(CODEBOOK):
        problems.append(f"{CODEBOOK}: missing; run the same `spae tokenize` again to restore it")
    committed, kept_fields = committed_shards(storage), plan.kept_fields()
    num_planned = num_ok = num_quarantined = 0
    for shard in range(plan.num_shards):
        planned = plan.read_shard(shard)["sample_id"].to_pylist()
        num_planned += len(planned)
        if shard not in committed:
            problems.append(f"{data_part(shard)}: missing; run the same `spae tokenize` again to make it")
            continue
        schema = tokens_schema(config.settings.num_layers, kept_fields=kept_fields)
        checked = _ShardCheck(storage=storage, config=config, schema=schema, shard=shard, entry=entries.get(shard))
        good, rejected = checked.good_ids(), checked.rejected_ids()
        num_ok += len(good)
        num_quarantined += len(rejected)
        problems += checked.problems
        problems += _accounting(shard, planned, good, rejected)
    if manifest:
        found = (num_planned, num_ok, num_quarantined)
        promised = (manifest.num_planned, manifest.num_ok, manifest.num_quarantined)
        if found != promised:
            problems.append(f"{MANIFEST}: expected planned, ok, quarantined {found} as found, got {promised}")
    return VerifyReport(
        num_planned=num_planned,
        num_ok=num_ok,
        num_quarantined=num_quarantined,
        num_shards=plan.num_shards,
        problems=tuple(problems),
    )


class _ShardCheck:
    """Reads the two files of a shard, noting what is wrong with them."""

    def __init__(
        self, *, storage: Storage, config: RunConfig, schema: pa.Schema, shard: int, entry: PartEntry | None
    ) -> None:
        self.storage = storage
        self.config = config
        self.schema = schema
        self.shard = shard
        self.entry = entry
        self.problems: list[str] = []

    def good_ids(self) -> list[str]:
        """Ids in the data file; notes a wrong hash, schema, footer, id order or token."""
        path = data_part(self.shard)
        table = self._read(path, self.entry.sha256 if self.entry else None)
        if table is None:
            return []
        settings = self.config.settings
        try:
            metadata = TokensMetadata.from_footer(table.schema.metadata, where=path)
        except SchemaError as error:
            self.problems.append(str(error))
            return []
        for name in ("model_sha256", "codebook_sha256", "plan_sha256", "layer_grids"):
            expected, got = getattr(settings, name), getattr(metadata, name)
            if got != expected:
                self.problems.append(f"{path}: expected {name} {expected} of the config, got {got}")
        if table.schema.remove_metadata() != self.schema:
            names = ", ".join(table.schema.names)
            expected = ", ".join(self.schema.names)
            self.problems.append(
                f"{path}: expected {settings.num_layers} layers in the columns {expected}, got columns {names}"
            )
            return []
        for layer, (height, width) in enumerate(settings.layer_grids[: num_token_layers(table.schema)]):
            self.problems += _token_problems(
                path, table, layer, tokens_per_row=height * width, codebook_size=settings.codebook_size
            )
        ids: list[str] = table["sample_id"].to_pylist()
        if ids != sorted(ids):
            self.problems.append(f"{path}: expected rows sorted by sample_id, got another order")
        if metadata.num_ok != len(ids):
            self.problems.append(f"{path}: expected {metadata.num_ok} rows as its footer says, got {len(ids)}")
        return ids

    def rejected_ids(self) -> list[str]:
        """Ids in the quarantine file; notes a missing file or a wrong hash."""
        path = quarantine_part(self.shard)
        if not self.storage.exists(path):
            self.problems.append(f"{path}: missing")
            return []
        table = self._read(path, self.entry.quarantine_sha256 if self.entry else None)
        return [] if table is None else table["sample_id"].to_pylist()

    def _read(self, path: str, expected_sha256: str | None) -> pa.Table | None:
        data = self.storage.read_bytes(path)
        got = hashlib.sha256(data).hexdigest()
        if expected_sha256 is not None and got != expected_sha256:
            self.problems.append(f"{path}: expected sha256 {expected_sha256} of the manifest, got {got}")
        try:
            return read_parquet(data)
        except (pa.ArrowException, OSError) as error:
            self.problems.append(f"{path}: expected a whole Parquet file, got: {error}")
            return None


def _token_problems(
    path: str, table: pa.Table, layer: int, *, tokens_per_row: int, codebook_size: int
) -> Iterator[str]:
    column = table[token_column(layer)].combine_chunks()
    lengths = np.diff(column.offsets.to_numpy())
    if (lengths != tokens_per_row).any():
        wrong = sorted({int(length) for length in lengths if length != tokens_per_row})[:_MOST_IDS_SHOWN]
        yield f"{path}: expected {tokens_per_row} tokens a picture in layer {layer}, got {wrong}"
    indices = column.flatten().to_numpy(zero_copy_only=False)
    if indices.size and (indices.min() < 0 or indices.max() >= codebook_size):
        yield (
            f"{path}: expected code indices in [0, {codebook_size}) in layer {layer}, "
            f"got {indices.min()} to {indices.max()}"
        )


def _accounting(shard: int, planned: list[str], good: list[str], rejected: list[str]) -> Iterator[str]:
    """Every planned id must be good or rejected, once."""
    found = Counter([*good, *rejected])
    doubled = sorted(sample_id for sample_id, count in found.items() if count > 1)
    missing = sorted(set(planned) - found.keys())
    unplanned = sorted(found.keys() - set(planned))
    for what, ids in (("more than once", doubled), ("nowhere", missing), ("not in the plan", unplanned)):
        if ids:
            yield (
                f"shard {shard}: expected each planned picture once, got {len(ids)} {what} "
                f"(first: {', '.join(ids[:_MOST_IDS_SHOWN])})"
            )


def _read_manifest(storage: Storage) -> tuple[Manifest | None, list[str]]:
    if not storage.exists(SUCCESS) or not storage.exists(MANIFEST):
        return None, [f"{SUCCESS}: the run is not finished; run the same `spae tokenize` again"]
    try:
        text = storage.read_bytes(MANIFEST).decode(errors="replace")
        return Manifest.from_json(text, where=storage.url(MANIFEST)), []
    except (SchemaError, ValueError) as error:
        return None, [str(error)]


def _stray_files(storage: Storage, num_shards: int) -> Iterator[str]:
    for name in storage.names(DATA_FOLDER):
        shard = shard_of_part(name)
        if shard is None or shard >= num_shards:
            yield f"{DATA_FOLDER}/{name}: not a file of this run; take it out"

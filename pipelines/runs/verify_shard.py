"""Check one shard of a run: each planned picture once, its tokens in range, its files as the manifest says."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipelines.errors import BadDataError
from pipelines.parquet_files import read_parquet
from pipelines.runs.plan import Plan
from pipelines.runs.rounds import open_round_plan
from pipelines.runs.run_config import RunConfig
from pipelines.runs.run_layout import (
    DATA_FOLDER,
    QUARANTINE_FOLDER,
    data_part,
    quarantine_part,
    retry_part,
    round_of_part,
    round_quarantine_part,
)
from pipelines.storage import Storage
from schemas.manifest import Manifest
from schemas.rounds import Round
from schemas.tokens import TokensMetadata, num_token_layers, token_column, tokens_schema
from schemas.versions import SchemaError

_MOST_IDS_SHOWN = 3


class ShardCheck:
    """Reads the files of one shard after the other, noting what is wrong with them."""

    def __init__(
        self,
        *,
        storage: Storage,
        config: RunConfig,
        plan: Plan,
        rounds: Sequence[Round],
        manifest: Manifest | None,
    ) -> None:
        self.storage = storage
        self.config = config
        self.plan = plan
        self.rounds = rounds
        self.schema = tokens_schema(config.settings.num_layers, kept_fields=plan.kept_fields())
        self.entries = {entry.path: entry for entry in manifest.parts} if manifest else {}
        self.sha256_of_quarantine = {
            entry.path.replace(DATA_FOLDER, QUARANTINE_FOLDER, 1): entry.quarantine_sha256
            for entry in self.entries.values()
        }
        for done in manifest.rounds if manifest else ():
            self.sha256_of_quarantine.update(done.quarantine_sha256)
        self.problems: list[str] = []

    def run(self, shard: int, data_paths: list[str], quarantine_paths: list[str]) -> tuple[int, int, int]:
        """Check one shard.

        Returns:
            Rows planned, good, and in quarantine now.
        """
        planned = self._planned_by_round(shard)
        all_planned = {sample_id for ids in planned.values() for sample_id in ids}
        if data_part(shard) not in data_paths:
            self.problems.append(f"{data_part(shard)}: missing; run the same `spae tokenize` again to make it")
            return len(all_planned), 0, 0
        good = {path: self._good_ids(path) for path in data_paths}
        rejected = {self._round_of(path): self._rejected_ids(path) for path in quarantine_paths}
        for path in self._expected_quarantine(shard, data_paths, planned):
            if path not in quarantine_paths:
                self.problems.append(f"{path}: missing")
        retried = {round_of: set(ids) for round_of, ids in planned.items()}
        for path, ids in good.items():
            number = self._round_of(path)
            if number and not set(ids) <= retried.get(number, set()):
                self.problems.append(f"{path}: expected only rows of its retry, got others")
        all_good = [sample_id for ids in good.values() for sample_id in ids]
        waiting = _latest_rejected(planned, rejected)
        self.problems += _accounting(shard, all_planned, all_good, waiting)
        self.problems += _unplanned_rejections(shard, planned, rejected)
        return len(all_planned), len(all_good), len(set(waiting) - set(all_good))

    def _planned_by_round(self, shard: int) -> dict[int, list[str]]:
        """Round -> ids of this shard that it planned; round 0 is the run, or the extension that made the shard."""
        planned: dict[int, list[str]] = {}
        if shard < self.plan.num_shards:
            planned[0] = self.plan.read_shard(shard)["sample_id"].to_pylist()
        for one in self.rounds:
            try:
                ids = open_round_plan(self.storage, one).read_shard(shard)["sample_id"].to_pylist()
            except (OSError, BadDataError):
                continue  # Noted as a damaged round.
            if one.kind == "extend" and shard >= one.first_new_shard:
                planned[0] = ids
            elif ids:
                planned[one.number] = ids
        return planned or {0: []}

    def _expected_quarantine(self, shard: int, data_paths: list[str], planned: dict[int, list[str]]) -> Iterator[str]:
        """Quarantine files that must be there: one for each round that is through with the shard."""
        yield quarantine_part(shard)
        for one in self.rounds:
            if one.number in planned and (one.kind == "extend" or retry_part(shard, one.number) in data_paths):
                yield round_quarantine_part(shard, one.kind, one.number)

    def _round_of(self, path: str) -> int:
        part = round_of_part(path.rpartition("/")[2])
        return part[1] if part else 0

    def _plan_sha256(self, number: int) -> str:
        """The plan that the footer of a file written by this round must name."""
        plans = {one.number: one.plan_sha256 for one in self.rounds}
        return plans.get(number, self.config.settings.plan_sha256)

    def _good_ids(self, path: str) -> list[str]:
        """Ids in a data file; notes a wrong hash, schema, footer, id order or token."""
        entry = self.entries.get(path)
        table = self._read(path, entry.sha256 if entry else None)
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
            if name == "plan_sha256":
                expected = self._plan_sha256(metadata.round)
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

    def _rejected_ids(self, path: str) -> list[str]:
        """Ids in a quarantine file; notes a wrong hash."""
        table = self._read(path, self.sha256_of_quarantine.get(path))
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


def _latest_rejected(planned: dict[int, list[str]], rejected: dict[int, list[str]]) -> list[str]:
    """Ids that the round which did them last has rejected; an earlier rejection is history."""
    last_round = {sample_id: number for number in sorted(planned) for sample_id in planned[number]}
    return [i for number, ids in rejected.items() for i in ids if last_round.get(i, number) == number]


def _unplanned_rejections(shard: int, planned: dict[int, list[str]], rejected: dict[int, list[str]]) -> Iterator[str]:
    for number, ids in rejected.items():
        others = sorted(set(ids) - set(planned.get(number, ())))
        if others and number:
            yield f"shard {shard}: expected only rows of round {number} in its quarantine, got {len(others)} others"


def _accounting(shard: int, planned: set[str], good: list[str], rejected: list[str]) -> Iterator[str]:
    """Every planned id must be good or rejected, once."""
    found = Counter([*good, *rejected])
    doubled = sorted(sample_id for sample_id, count in found.items() if count > 1)
    missing = sorted(planned - found.keys())
    unplanned = sorted(found.keys() - planned)
    for what, ids in (("more than once", doubled), ("nowhere", missing), ("not in the plan", unplanned)):
        if ids:
            yield (
                f"shard {shard}: expected each planned picture once, got {len(ids)} {what} "
                f"(first: {', '.join(ids[:_MOST_IDS_SHOWN])})"
            )

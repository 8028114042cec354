"""Commit a shard of a retry or an extension, so that a glob over `data/` is right at every moment.

A retry's rows are in no data file yet: those that are good now get a file of their own, created only if absent. So do
the new inputs of an extension, in shards of their own. A *changed* input keeps its place: the file that has its row is
rebuilt with the new row and replaced in one step, if nobody else has replaced it meanwhile. The file's footer says
which round wrote it, so that the step is done once. The shard's first file is replaced last: it is the commit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.parquet_files import read_parquet
from pipelines.runs.commit import ShardWriter, part_entry, quarantine_parquet
from pipelines.runs.plan import Plan
from pipelines.runs.rounds import ids_in, missing_among, open_round_plan, parts_by_shard, round_in_footer
from pipelines.runs.run_config import RunConfig
from pipelines.runs.run_layout import data_part, quarantine_part, retry_part, round_quarantine_part
from pipelines.stages.stage import RejectedRow
from schemas.manifest import PartEntry
from schemas.rounds import Round
from schemas.tokens import TokensMetadata


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundWriter(ShardWriter):
    """Writes the shards of one round. Pickles.

    Attributes:
        round: The round.
    """

    round: Round

    def data_path(self, shard: int) -> str:
        """A retry's own file, or the shard's."""
        return retry_part(shard, self.round.number) if self.round.kind == "retry" else data_part(shard)

    def committed(self, among: frozenset[int]) -> frozenset[int]:
        """Those of some shards of the round that are done: not what was there before it."""
        return among.difference(missing_among(self.storage, self.round, among))

    def quarantine_path(self, shard: int) -> str:
        """The round's own file; a new shard's is named as ever."""
        if self._is_new(shard):
            return quarantine_part(shard)
        return round_quarantine_part(shard, self.round.kind, self.round.number)

    def attempts(self, shard: int) -> Mapping[str, int]:
        """Of a retry: as its plan says."""
        if self.round.kind != "retry":
            return {}
        rows = open_round_plan(self.storage, self.round).read_shard(shard)
        return dict(zip(rows["sample_id"].to_pylist(), rows["attempt"].to_pylist(), strict=True))

    def parquet(
        self, shard: int, table: pa.Table, *, num_planned: int, num_quarantined: int, round_number: int = 0
    ) -> bytes:
        """As for the run, with the round in the footer."""
        # Not super(): a dataclass with slots is made anew, and super() without arguments would mean the old one.
        return ShardWriter.parquet(
            self,
            shard,
            table,
            num_planned=num_planned,
            num_quarantined=num_quarantined,
            round_number=round_number or self.round.number,
        )

    def commit(
        self,
        shard: int,
        *,
        sample_ids: Sequence[str],
        batches: Sequence[pa.RecordBatch],
        rejected: Sequence[RejectedRow],
    ) -> PartEntry:
        """Write the shard's new part, or rebuild the files whose inputs changed; see `ShardWriter.commit`."""
        if self.round.kind == "retry" or self._is_new(shard):
            return ShardWriter.commit(self, shard, sample_ids=sample_ids, batches=batches, rejected=rejected)
        table = self.token_table(batches)
        self.check_rows(shard, sample_ids, table["sample_id"].to_pylist(), rejected)
        first, *later = parts_by_shard(self.storage)[shard]
        done_again = set(sample_ids)
        # Before the commit. Once that is made, the file has its reasons and is left alone.
        if self._round_of(first) < self.round.number:
            # A row that was good before this process took over stays good, whatever went wrong with it now.
            kept = {
                i for path in later if self._round_of(path) >= self.round.number for i in ids_in(self.storage, path)
            }
            quarantine = quarantine_parquet([row for row in rejected if row.sample_id not in kept])
            self.storage.replace(self.quarantine_path(shard), quarantine)
        elsewhere: set[str] = set()
        for path in later:
            elsewhere |= self._rebuild(path, shard, table, done_again, only_own=True)
        self._rebuild(first, shard, table, done_again - elsewhere, only_own=False)
        return part_entry(self.storage, shard, first, quarantine_part(shard))

    def _rebuild(self, path: str, shard: int, table: pa.Table, done_again: set[str], *, only_own: bool) -> set[str]:
        """Replace a file by one with the new rows, unless this round's is there already.

        Args:
            path: The file.
            shard: Its shard.
            table: All good rows of the shard that this round made.
            done_again: Ids that the round did again: their old rows go.
            only_own: Put in only rows that this file had; otherwise all that `done_again` names.

        Returns:
            Ids of `done_again` that this file holds, or held before.
        """
        while True:
            version = self.storage.version(path)
            old = read_parquet(self.storage.read_bytes(path))
            metadata = TokensMetadata.from_footer(old.schema.metadata, where=self.storage.url(path))
            held = done_again & set(old["sample_id"].to_pylist())
            if metadata.round >= self.round.number:
                return held
            coming = pa.array(sorted(held if only_own else done_again), pa.string())
            kept = old.filter(pc.invert(pc.is_in(old["sample_id"], value_set=coming)))
            new = table.filter(pc.is_in(table["sample_id"], value_set=coming))
            merged = pa.concat_tables([kept.replace_schema_metadata(None).cast(new.schema), new])
            merged = merged.sort_by("sample_id").combine_chunks()
            data = self.parquet(
                shard,
                merged,
                num_planned=metadata.num_planned,
                num_quarantined=metadata.num_planned - merged.num_rows,
            )
            if self.storage.replace_version(path, data, version):
                return held

    def _is_new(self, shard: int) -> bool:
        return self.round.kind == "extend" and shard >= self.round.first_new_shard

    def _round_of(self, path: str) -> int:
        return round_in_footer(self.storage, path)


def round_writer(plan: Plan, config: RunConfig, one: Round) -> RoundWriter:
    """The writer of a round of a run: footers name its plan and its number of shards."""
    settings = replace(config.settings, plan_sha256=one.plan_sha256, num_shards=one.num_shards)
    return RoundWriter(
        storage=plan.storage, config=replace(config, settings=settings), kept_fields=plan.kept_fields(), round=one
    )

"""Commit one shard: quarantine first, then the data file, created only if absent.

The file is built whole in memory, read back and compared before anybody can see it. Its bytes depend on the
rows and the config alone: no time, no attempt, no machine is written into it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import BadDataError
from pipelines.parquet_files import open_parquet, read_parquet, to_parquet
from pipelines.runs.run_config import RunConfig
from pipelines.runs.run_layout import DATA_FOLDER, data_part, quarantine_part, shard_of_part
from pipelines.stages.stage import RejectedRow
from pipelines.storage import Storage
from schemas.manifest import PartEntry
from schemas.plan import KEPT
from schemas.quarantine import QUARANTINE_SCHEMA
from schemas.tokens import TokensMetadata, tokens_schema

#: Memory addresses in messages of libraries would make equal runs differ.
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardWriter:
    """Writes the shards of one run. Pickles: an engine sends it to its workers.

    Attributes:
        storage: Where the run is.
        config: The run's config; its settings go into each footer.
        kept_fields: The user's own columns, as the plan has them (`Plan.kept_fields`).
    """

    storage: Storage
    config: RunConfig
    kept_fields: tuple[pa.Field, ...] = ()

    def commit(
        self,
        shard: int,
        *,
        sample_ids: Sequence[str],
        batches: Sequence[pa.RecordBatch],
        rejected: Sequence[RejectedRow],
    ) -> PartEntry:
        """Write the quarantine file and create the data file of a shard.

        Args:
            shard: Number of the shard.
            sample_ids: Ids the plan gives the shard, each of which must be in exactly one of the next two.
            batches: Good rows with at least the columns of the token schema, in any order; the user's own columns
                in the struct column `kept`.
            rejected: Rows for the quarantine.

        Returns:
            The shard as committed: by this call, or by whoever came first.

        Raises:
            BadDataError: If rows are missing or doubled, or the file does not read back as written.
            StorageFullError: If there is no room; nothing is left under `data/`.
        """
        table = self.token_table(batches)
        self.check_rows(shard, sample_ids, table["sample_id"].to_pylist(), rejected)
        data = self.parquet(shard, table, num_planned=len(sample_ids), num_quarantined=len(rejected))
        quarantine = quarantine_parquet(rejected, attempts=self.attempts(shard))
        if self.storage.exists(self.data_path(shard)):
            return self.entry(shard)
        # Before the commit, so that a committed shard always has its quarantine file.
        self.storage.replace(self.quarantine_path(shard), quarantine)
        if not self.storage.create(self.data_path(shard), data):
            return self.entry(shard)
        return PartEntry(
            shard=shard,
            path=self.data_path(shard),
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            num_rows=table.num_rows,
            num_quarantined=len(rejected),
            quarantine_sha256=hashlib.sha256(quarantine).hexdigest(),
        )

    def committed(self, among: frozenset[int]) -> frozenset[int]:
        """Those of some shards that are committed, by whomever."""
        return committed_shards(self.storage) & among

    def entry(self, shard: int) -> PartEntry:
        """The entry of a committed shard, from its files."""
        return part_entry(self.storage, shard, self.data_path(shard), self.quarantine_path(shard))

    def data_path(self, shard: int) -> str:
        """The file whose existence commits a shard."""
        return data_part(shard)

    def quarantine_path(self, shard: int) -> str:
        """The file with the shard's rejected rows."""
        return quarantine_part(shard)

    def attempts(self, shard: int) -> Mapping[str, int]:
        """sample_id -> which attempt this is, of the rows that are not at their first."""
        return {}

    def token_table(self, batches: Sequence[pa.RecordBatch]) -> pa.Table:
        """Good rows as the token schema has them, sorted by sample_id."""
        schema = tokens_schema(self.config.settings.num_layers, kept_fields=self.kept_fields)
        tables = [self._unpacked(batch).select(schema.names) for batch in batches]
        table = pa.concat_tables(tables).cast(schema) if tables else schema.empty_table()
        return table.sort_by("sample_id").combine_chunks()

    def _unpacked(self, batch: pa.RecordBatch) -> pa.Table:
        """A batch as a table, with a column for each of the user's own."""
        table = pa.Table.from_batches([batch])
        for field in self.kept_fields:
            table = table.append_column(field, pc.struct_field(table[KEPT], [field.name]))
        return table

    def check_rows(
        self, shard: int, planned: Sequence[str], good: Sequence[str], rejected: Sequence[RejectedRow]
    ) -> None:
        """Refuse rows that are not each planned id once."""
        found = sorted([*good, *(row.sample_id for row in rejected)])
        if found != sorted(planned):
            raise BadDataError(
                f"rows of shard {shard}: expected each of {len(planned)} planned ids once, "
                f"got {len(good)} good and {len(rejected)} rejected rows that do not match them. "
                "This is a fault of a stage; please report it with the shard's plan rows."
            )

    def parquet(
        self, shard: int, table: pa.Table, *, num_planned: int, num_quarantined: int, round_number: int = 0
    ) -> bytes:
        """The data file's bytes, read back and compared."""
        settings = self.config.settings
        metadata = TokensMetadata(
            model=self.config.model,
            model_sha256=settings.model_sha256,
            codebook_sha256=settings.codebook_sha256,
            codebook_size=settings.codebook_size,
            layer_grids=settings.layer_grids,
            preprocessing=settings.preprocessing,
            decoder=settings.decoder,
            plan_sha256=settings.plan_sha256,
            shard=shard,
            num_shards=settings.num_shards,
            num_planned=num_planned,
            num_ok=table.num_rows,
            num_quarantined=num_quarantined,
            round=round_number,
        )
        table = table.replace_schema_metadata(metadata.to_footer())
        data = to_parquet(table)
        again = read_parquet(data)
        if not again.equals(table, check_metadata=True):
            raise BadDataError(
                f"file of shard {shard}: expected to read back what was written, got other rows. "
                "Check the machine's memory, then run the same command again."
            )
        return data


def part_entry(storage: Storage, shard: int, data_path: str, quarantine_path: str) -> PartEntry:
    """The entry of a committed part, from its two files."""
    data = storage.read_bytes(data_path)
    footer = open_parquet(data).metadata.metadata
    metadata = TokensMetadata.from_footer(footer, where=storage.url(data_path))
    return PartEntry(
        shard=shard,
        path=data_path,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        num_rows=metadata.num_ok,
        num_quarantined=metadata.num_quarantined,
        quarantine_sha256=hashlib.sha256(storage.read_bytes(quarantine_path)).hexdigest(),
    )


def committed_shards(storage: Storage) -> frozenset[int]:
    """Shards of a run whose data file exists."""
    shards = (shard_of_part(name) for name in storage.names(DATA_FOLDER))
    return frozenset(shard for shard in shards if shard is not None)


def quarantine_parquet(rejected: Sequence[RejectedRow], *, attempts: Mapping[str, int] | None = None) -> bytes:
    """The quarantine file of a shard, sorted by sample_id.

    Args:
        rejected: The rows; none gives a file without rows, so that every shard has one.
        attempts: sample_id -> attempt: 1 for the first run, one more for each retry. Default: 1.
    """
    rows = [
        {
            "sample_id": row.sample_id,
            "uri": row.uri,
            "stage": row.stage,
            "error_class": row.error_class,
            "message": _MEMORY_ADDRESS.sub("", row.message),
            "attempt": (attempts or {}).get(row.sample_id, 1),
        }
        for row in sorted(rejected, key=lambda row: row.sample_id)
    ]
    return to_parquet(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))

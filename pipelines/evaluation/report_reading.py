"""Read what a report needs from the folder of a run: in one pass, in memory that does not grow with the run.

Which samples are picked depends on their ids and on nothing else: those whose hashes are smallest. That is an
even draw over the whole run, and the number of shards does not change it.

Legend: N layers written, V codebook size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipelines.errors import BadDataError, UsageError
from pipelines.evaluation.report_data import LayerUsage, QuarantineGroup, RunData, SampleRow
from pipelines.runs.claim import read_config
from pipelines.runs.plan import Plan
from pipelines.runs.rounds import parts_by_shard, planned_rows, quarantined_now, read_rounds
from pipelines.runs.run_config import RunSettings
from pipelines.runs.run_layout import CODEBOOK, MANIFEST, SUCCESS
from pipelines.storage import Storage, open_storage
from schemas.manifest import Manifest
from schemas.tokens import SAMPLE_FIELDS, TokensMetadata, token_column
from schemas.versions import SchemaError
from spae_core.metrics import LayerCodeStatistics, codebook_perplexity

_BATCH_ROWS = 1024
_NUM_TOP_CODES = 12
_SAMPLE_COLUMNS = [field.name for field in SAMPLE_FIELDS]


def read_run(location: str, *, num_samples: int, sample_ids: Sequence[str] = ()) -> RunData:
    """Read everything a report needs from the folder of a run.

    Args:
        location: Folder or url that `spae tokenize` wrote.
        num_samples: Samples to pick, >= 0; fewer if the run has fewer.
        sample_ids: Pick exactly these instead.

    Returns:
        The run; an unfinished or empty one too.

    Raises:
        UsageError: If there is no run at `location`, or it has no sample of one of `sample_ids`.
        BadDataError: If the files do not belong together, or a file is not what it claims to be.
    """
    try:
        return _read(open_storage(location), location, num_samples, sample_ids)
    except (SchemaError, pa.ArrowInvalid) as error:
        raise BadDataError(f"run {location}: {error}") from error


def _read(storage: Storage, location: str, num_samples: int, sample_ids: Sequence[str]) -> RunData:
    config = read_config(storage)
    picker = _SamplePicker(num_samples, frozenset(sample_ids))
    counter = _TokenCounter(config.settings)
    for shard, paths in sorted(parts_by_shard(storage).items()):
        for path in paths:
            counter.read(storage, path, shard, picker)
    missing = sorted(set(sample_ids) - {row.sample_id for row in picker.rows()})
    if missing:
        raise UsageError(
            f"samples of {location}: expected ids of the run, got {', '.join(missing[:5])}. "
            "Take ids from the column sample_id of data/."
        )
    samples = _with_records(storage, config.settings.num_shards, picker.rows())
    words, token_ids, source = _read_codebook(storage, config.settings)
    groups = _read_quarantine(storage)
    manifest = None
    if storage.exists(MANIFEST):
        manifest = Manifest.from_json(storage.read_bytes(MANIFEST).decode(), where=storage.url(MANIFEST))
    return RunData(
        location=location,
        config=config,
        manifest=manifest,
        is_finished=storage.exists(SUCCESS),
        num_rows=counter.num_rows,
        num_bytes=counter.num_bytes,
        num_quarantined=sum(group.count for group in groups),
        quarantine_groups=groups,
        words=words,
        token_ids=token_ids,
        codebook_source=source,
        usage=counter.usage(),
        samples=tuple(sorted(samples, key=lambda row: (row.uri, row.sample_id))),
    )


class _TokenCounter:
    """Counts rows, bytes and codes over the token files, and holds them to the run's codebook and pyramid."""

    def __init__(self, settings: RunSettings) -> None:
        self.num_rows = 0
        self.num_bytes = 0
        self._settings = settings
        self._codes = LayerCodeStatistics(settings.num_layers, settings.codebook_size)

    def read(self, storage: Storage, path: str, shard: int, picker: _SamplePicker) -> None:
        """Read a token file of a shard, offering its rows to `picker`."""
        where = storage.url(path)
        num_layers = self._settings.num_layers
        columns = [*_SAMPLE_COLUMNS, *map(token_column, range(num_layers))]
        with storage.open(path) as file:
            parquet = pq.ParquetFile(file)
            self._check(TokensMetadata.from_footer(parquet.schema_arrow.metadata, where=where), where)
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                self.num_rows += batch.num_rows
                try:
                    codes = [torch.from_numpy(_codes(batch, layer)) for layer in range(num_layers)]
                    self._codes.update(codes)
                except ValueError as error:
                    raise BadDataError(f"tokens of {where}: {error}") from error
                picker.offer(batch, num_layers, shard)
            self.num_bytes += file.seek(0, 2)

    def _check(self, part: TokensMetadata, where: str) -> None:
        settings = self._settings
        if (part.codebook_sha256, part.layer_grids) != (settings.codebook_sha256, settings.layer_grids):
            raise BadDataError(
                f"tokens of {where}: expected codebook {settings.codebook_sha256[:12]} and layers "
                f"{settings.layer_grids}, got {part.codebook_sha256[:12]} and {part.layer_grids}. "
                "Keep the files of two runs apart."
            )

    def usage(self) -> tuple[LayerUsage, ...]:
        """One entry a layer."""
        pairs = zip(self._codes.counts, self._settings.layer_grids, strict=True)
        return tuple(_layer_usage(counts, grid) for counts, grid in pairs)


def _codes(batch: pa.RecordBatch, layer: int) -> NDArray[np.int64]:
    return np.asarray(batch[token_column(layer)].flatten(), dtype=np.int64)


def _layer_usage(counts: torch.Tensor, grid: tuple[int, int]) -> LayerUsage:
    total, used = int(counts.sum()), int((counts > 0).sum())
    order = torch.argsort(counts, descending=True, stable=True)[: min(_NUM_TOP_CODES, used)].tolist()
    return LayerUsage(
        grid=grid,
        num_codes_used=used,
        codebook_usage=used / max(len(counts), 1),
        codebook_perplexity=codebook_perplexity(counts) if total else 0.0,
        top_codes=tuple((code, int(counts[code]) / total) for code in order),
    )


class _SamplePicker:
    """Keeps the rows asked for, or those whose ids have the smallest hashes."""

    def __init__(self, num_samples: int, sample_ids: frozenset[str]) -> None:
        self._num_samples = num_samples
        self._sample_ids = sample_ids
        # A heap of (negative hash, id, serial number, row), the worst first; the number is there because rows
        # have no order.
        self._kept: list[tuple[int, str, int, SampleRow]] = []
        self._num_offered = 0

    def offer(self, batch: pa.RecordBatch, num_layers: int, shard: int) -> None:
        """Keep what belongs to the picked rows of all that were offered so far."""
        for index, sample_id in enumerate(batch["sample_id"].to_pylist()):
            if self._sample_ids and sample_id not in self._sample_ids:
                continue
            self._num_offered += 1
            rank = -int.from_bytes(hashlib.blake2b(sample_id.encode(), digest_size=8).digest(), "big")
            has_room = bool(self._sample_ids) or len(self._kept) < self._num_samples
            if has_room or (self._kept and (rank, sample_id) > self._kept[0][:2]):
                entry = (rank, sample_id, self._num_offered, _sample_row(batch, index, num_layers, shard))
                if has_room:
                    heapq.heappush(self._kept, entry)
                else:
                    heapq.heapreplace(self._kept, entry)

    def rows(self) -> list[SampleRow]:
        """What is kept, in no order."""
        return [row for *_, row in self._kept]


def _sample_row(batch: pa.RecordBatch, index: int, num_layers: int, shard: int) -> SampleRow:
    (row,) = batch.slice(index, 1).to_pylist()
    codes = tuple(tuple(row.pop(token_column(layer))) for layer in range(num_layers))
    return SampleRow(code_indices=codes, shard=shard, **row)


def _with_records(storage: Storage, num_shards: int, rows: Sequence[SampleRow]) -> list[SampleRow]:
    """The rows with the places of those that lie in containers; the plan has them."""
    shards = {row.shard for row in rows if "#" in row.uri}
    places: dict[str, dict[str, Any]] = {}
    if shards:
        plan, rounds = Plan.open(storage, num_shards), read_rounds(storage)
        for shard in sorted(shards):
            found = planned_rows(plan, rounds, shard).select(["sample_id", "size_bytes", "record"]).to_pylist()
            places |= {row.pop("sample_id"): row for row in found if row["record"]}
    return [dataclasses.replace(row, **places.get(row.sample_id, {})) for row in rows]


def _read_codebook(storage: Storage, settings: RunSettings) -> tuple[tuple[str, ...], tuple[int, ...], str]:
    """Words, token ids and source; without the table, words that show the code's number and ids of -1."""
    expected = (settings.codebook_sha256, settings.codebook_size)
    if not storage.exists(CODEBOOK):
        return tuple(f"#{code}" for code in range(settings.codebook_size)), (-1,) * settings.codebook_size, ""
    with storage.open(CODEBOOK) as file:
        table = pq.read_table(file).sort_by("code_index")
    footer = table.schema.metadata or {}
    found = footer.get(b"spae.codebook_sha256", b"").decode()
    if (found, table.num_rows) != expected:
        raise BadDataError(
            f"codebook {storage.url(CODEBOOK)}: expected {expected[0][:12]} with "
            f"{expected[1]} words, got {found[:12] or 'none'} with {table.num_rows}. "
            "Restore the file that the run wrote."
        )
    words = tuple(_readable(text) for text in table["text"].to_pylist())
    return words, tuple(table["token_id"].to_pylist()), footer.get(b"spae.source", b"").decode()


def _readable(text: str) -> str:
    """A word as it can be seen: without the space before it; blanks and control characters spelled out."""
    word = text.strip(" ")
    if word and word.isprintable():
        return word
    return repr(text)[1:-1].replace(" ", "␣") or "∅"


def _read_quarantine(storage: Storage) -> tuple[QuarantineGroup, ...]:
    """Group by stage and class, most frequent first; the first row of each is its example."""
    counts: dict[tuple[str, str], int] = {}
    examples: dict[tuple[str, str], tuple[str, str]] = {}
    for rows in quarantined_now(storage).values():
        for row in rows.values():
            reason = (str(row["stage"]), str(row["error_class"]))
            counts[reason] = counts.get(reason, 0) + 1
            examples.setdefault(reason, (str(row["uri"]), str(row["message"])))
    return tuple(
        QuarantineGroup(
            stage=reason[0],
            error_class=reason[1],
            count=counts[reason],
            example_uri=examples[reason][0],
            example_message=examples[reason][1],
        )
        for reason in sorted(counts, key=lambda reason: (-counts[reason], reason))
    )

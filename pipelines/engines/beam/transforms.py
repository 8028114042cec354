"""The pipeline of a run: shards -> plan rows -> reading and decoding -> model -> one commit a shard."""

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, Literal

import apache_beam as beam
import pyarrow as pa
from apache_beam.ml.inference.base import RunInference
from apache_beam.pvalue import PCollection, TaggedOutput

from pipelines.batch_bytes import batch_from_bytes, batch_to_bytes
from pipelines.bisection import run_isolating
from pipelines.engine import COMMIT
from pipelines.engines.beam.model_handler import StageModelHandler
from pipelines.engines.beam.rows import split_rows
from pipelines.engines.beam.tally import Tally
from pipelines.errors import BadDataError, StorageFullError
from pipelines.runs.commit import ShardWriter
from pipelines.runs.plan import Plan
from pipelines.stages.stage import RejectedRow, Stage

_GOOD = "good"
_REJECTED: Literal["rejected"] = "rejected"
_RejectedOutput = TaggedOutput[Literal["rejected"], tuple[Any, RejectedRow]]


class TokenizeRows(beam.PTransform[Any, Any]):
    """Keyed rows through the feeding stages and the model: `(key, rows)` to `(key, outcome)`.

    Input are bytes of `batch_to_bytes`, one row or a chunk of them under one key, whose `sample_id` differ.
    Output has one element a row: its bytes, or the `RejectedRow`.
    """

    def __init__(self, *, feeding_stages: Sequence[Stage], handler: StageModelHandler, tally: Tally) -> None:
        super().__init__()
        self._feeding_stages = tuple(feeding_stages)
        self._handler = handler
        self._tally = tally

    def expand(self, rows: PCollection[Any]) -> PCollection[Any]:
        """Decode, and give what could be decoded to RunInference."""
        fed = rows | "Decode" >> beam.ParDo(_RunStages(self._feeding_stages, self._tally)).with_outputs(
            _REJECTED, main=_GOOD
        )
        outcomes = fed[_GOOD] | "Model" >> RunInference(self._handler)
        together: PCollection[Any] = (outcomes, fed[_REJECTED]) | "Outcomes" >> beam.Flatten()
        return together


class TokenizeShards(beam.PTransform[Any, Any]):
    """Shard numbers to committed shards; gives the numbers of those that were written.

    The plan's rows are shuffled, so that all workers share one large shard, and come together again by shard at
    the commit. A shard without rows is committed too.
    """

    def __init__(
        self,
        plan: Plan,
        writer: ShardWriter,
        *,
        feeding_stages: Sequence[Stage],
        handler: StageModelHandler,
        rows_per_chunk: int,
        tally: Tally,
    ) -> None:
        super().__init__()
        self._plan, self._writer, self._tally = plan, writer, tally
        self._rows_per_chunk = rows_per_chunk
        self._tokenize = TokenizeRows(feeding_stages=feeding_stages, handler=handler, tally=tally)

    def expand(self, shards: PCollection[Any]) -> PCollection[Any]:
        """Read, shuffle, tokenize, group, commit."""
        outcomes = (
            shards
            | "Read plan" >> beam.ParDo(_ReadPlan(self._plan, self._rows_per_chunk))
            | "Spread" >> beam.Reshuffle()
            | "Tokenize" >> self._tokenize
            | "Shard of row" >> beam.Map(lambda element: element).with_output_types(tuple[int, Any])
        )
        every_shard = shards | "Every shard" >> beam.Map(_without_outcome).with_output_types(tuple[int, Any])
        written: PCollection[Any] = (
            (outcomes, every_shard)
            | "Rows and shards" >> beam.Flatten()
            | "By shard" >> beam.GroupByKey()
            | "Commit" >> beam.ParDo(_CommitShard(self._plan, self._writer, self._tally))
        )
        return written


def _without_outcome(shard: int) -> tuple[int, None]:
    """Makes a shard known to the grouping even if it has no row."""
    return shard, None


class _ReadPlan(beam.DoFn):
    """A shard's rows of the plan, in chunks."""

    def __init__(self, plan: Plan, rows_per_chunk: int) -> None:
        self._plan, self._rows_per_chunk = plan, rows_per_chunk

    def process(self, shard: int) -> Iterator[tuple[int, bytes]]:
        table = self._plan.rows_to_read(shard).combine_chunks()
        for batch in table.to_batches(max_chunksize=self._rows_per_chunk):
            yield shard, batch_to_bytes(batch)


class _RunStages(beam.DoFn):
    """The feeding stages over a chunk; good rows one by one, rejected ones to their own output."""

    def __init__(self, stages: Sequence[Stage], tally: Tally) -> None:
        self._stages, self._tally = tuple(stages), tally

    def setup(self) -> None:
        self._tally.begin()
        for stage in self._stages:
            stage.setup()

    def process(self, element: tuple[Any, bytes]) -> Iterator[tuple[Any, bytes] | _RejectedOutput]:
        if self._tally.is_stopping:
            return
        key, chunk = element
        batch = batch_from_bytes(chunk)
        rejected: list[RejectedRow] = []
        for stage in self._stages:
            started = perf_counter()
            result = run_isolating(stage, batch)
            self._tally.busy(stage.name, perf_counter() - started)
            rejected += result.rejected
            batch = result.batch
        self._tally.rows(0, rejected)
        for row in rejected:
            yield TaggedOutput(_REJECTED, (key, row))
        for encoded in split_rows(batch):
            yield key, encoded


class _CommitShard(beam.DoFn):
    """Write a shard from all its rows; the plan is read again, so that a row lost on the way is noticed."""

    def __init__(self, plan: Plan, writer: ShardWriter, tally: Tally) -> None:
        self._plan, self._writer, self._tally = plan, writer, tally

    def process(self, element: tuple[int, Iterable[bytes | RejectedRow | None]]) -> Iterator[int]:
        if self._tally.is_stopping:
            return
        shard, outcomes = element
        batches: list[pa.RecordBatch] = []
        rejected: list[RejectedRow] = []
        for outcome in outcomes:
            if isinstance(outcome, RejectedRow):
                rejected.append(outcome)
            elif outcome is not None:
                batches.append(batch_from_bytes(outcome))
        started = perf_counter()
        try:
            sample_ids = self._plan.read_shard(shard)["sample_id"].to_pylist()
            self._writer.commit(shard, sample_ids=sample_ids, batches=batches, rejected=rejected)
        except (OSError, BadDataError, StorageFullError) as error:
            # Told and not raised: a runner would repeat the shard, then give the other shards up too.
            self._tally.failed(shard, error)
            return
        finally:
            self._tally.busy(COMMIT, perf_counter() - started)
        yield shard

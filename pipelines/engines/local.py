"""The local engine: one process, reading and decoding in threads ahead of the model.

It is the oracle the other engines are compared with, so it is as plain as it can be: chunks of rows go to the
threads in plan order and come back in plan order, at most `max_chunks_ahead` of them at a time; the model
takes them in batches; a shard is committed when its last row is done. The next shard is being decoded
meanwhile.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.bisection import run_isolating
from pipelines.engine import COMMIT, EngineReport, Progress
from pipelines.errors import BadDataError
from pipelines.runs.commit import ShardWriter
from pipelines.runs.plan import Plan
from pipelines.stages.stage import RejectedRow, Stage
from schemas.manifest import PartEntry, StageTiming


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunk:
    """Rows of one shard, through the feeding stages."""

    shard: int
    is_last: bool
    sample_ids: list[str]
    batch: pa.RecordBatch
    rejected: tuple[RejectedRow, ...]
    busy_seconds: dict[str, float]


@dataclass(kw_only=True)
class LocalEngine:
    """Places stages in this process.

    Attributes:
        feeding_stages: Stages of the threads, in order: reading and decoding.
        model_stage: The stage of the main thread.
        num_threads: Threads for the feeding stages, >= 1.
        rows_per_chunk: Rows one thread takes at a time.
    """

    feeding_stages: Sequence[Stage]
    model_stage: Stage
    num_threads: int
    rows_per_chunk: int = 8

    def run_shards(
        self,
        plan: Plan,
        shards: Sequence[int],
        writer: ShardWriter,
        on_progress: Callable[[Progress], None],
    ) -> EngineReport:
        """Process shards in their order and commit each; see `pipelines.engine.Engine`.

        `on_progress` is called after each model batch and each commit.
        """
        self.model_stage.setup()
        for stage in self.feeding_stages:
            stage.setup()
        started = time.perf_counter()
        consumer = _Consumer(
            model_stage=self.model_stage,
            writer=writer,
            on_progress=on_progress,
            timings=lambda consumer: self._timings(consumer, time.perf_counter() - started),
        )
        with closing(self._feed(plan, shards)) as chunks:
            while True:
                waiting_since = time.perf_counter()
                chunk = next(chunks, None)
                consumer.wait_seconds += time.perf_counter() - waiting_since
                if chunk is None:
                    break
                consumer.take(chunk)
        return self._report(consumer, time.perf_counter() - started)

    def _feed(self, plan: Plan, shards: Sequence[int]) -> Generator[_Chunk, None, None]:
        """Chunks in order, some of them ahead of the consumer; threads end with the generator."""
        max_chunks_ahead = 2 * max(self.num_threads, -(-self.model_stage.resources.batch_size // self.rows_per_chunk))
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode")
        ahead: deque[Future[_Chunk]] = deque()
        try:
            for shard, is_last, rows in self._planned_chunks(plan, shards):
                ahead.append(pool.submit(self._feed_one, shard, is_last, rows))
                if len(ahead) >= max_chunks_ahead:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _planned_chunks(self, plan: Plan, shards: Sequence[int]) -> Iterator[tuple[int, bool, pa.RecordBatch]]:
        for shard in shards:
            table = plan.rows_to_read(shard)
            # A shard without rows still has one chunk: its commit is a file without rows.
            starts = range(0, max(table.num_rows, 1), self.rows_per_chunk)
            for start in starts:
                rows = table.slice(start, self.rows_per_chunk).combine_chunks().to_batches()
                empty = pa.RecordBatch.from_pylist([], schema=table.schema)
                yield shard, start == starts[-1], rows[0] if rows else empty

    def _feed_one(self, shard: int, is_last: bool, batch: pa.RecordBatch) -> _Chunk:
        """Run the feeding stages over a chunk; runs in a thread."""
        sample_ids = batch["sample_id"].to_pylist()
        rejected: list[RejectedRow] = []
        busy_seconds: dict[str, float] = {}
        for stage in self.feeding_stages:
            started = time.perf_counter()
            result = run_isolating(stage, batch)
            busy_seconds[stage.name] = time.perf_counter() - started
            rejected += result.rejected
            batch = result.batch
        return _Chunk(
            shard=shard,
            is_last=is_last,
            sample_ids=sample_ids,
            batch=batch,
            rejected=tuple(rejected),
            busy_seconds=busy_seconds,
        )

    def _report(self, consumer: "_Consumer", wall_seconds: float) -> EngineReport:
        return EngineReport(
            parts=tuple(consumer.parts),
            failures=consumer.failures,
            num_processed=consumer.num_done,
            wall_seconds=wall_seconds,
            stages=self._timings(consumer, wall_seconds),
        )

    def _timings(self, consumer: "_Consumer", wall_seconds: float) -> dict[str, StageTiming]:
        """Where the time went: the threads share theirs, and so do the model and the commits."""
        busy = consumer.busy_seconds
        feeding = [stage.name for stage in self.feeding_stages]
        idle = max(0.0, self.num_threads * wall_seconds - sum(busy.get(name, 0.0) for name in feeding))
        stages = {
            name: StageTiming(
                busy_seconds=busy.get(name, 0.0), wait_seconds=0.0, idle_seconds=idle, num_workers=self.num_threads
            )
            for name in feeding
        }
        for name, wait in ((self.model_stage.name, consumer.wait_seconds), (COMMIT, 0.0)):
            own = busy.get(name, 0.0)
            stages[name] = StageTiming(
                busy_seconds=own, wait_seconds=wait, idle_seconds=max(0.0, wall_seconds - own - wait), num_workers=1
            )
        return stages


@dataclass(kw_only=True)
class _Consumer:
    """The main thread's side: gathers rows into model batches and commits shard after shard."""

    model_stage: Stage
    writer: ShardWriter
    on_progress: Callable[[Progress], None]
    timings: Callable[["_Consumer"], dict[str, StageTiming]]
    parts: list[PartEntry] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    busy_seconds: dict[str, float] = field(default_factory=dict)
    wait_seconds: float = 0.0
    num_done: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    # The shard under way.
    sample_ids: list[str] = field(default_factory=list)
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    done: list[pa.RecordBatch] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)

    def take(self, chunk: _Chunk) -> None:
        """Add a chunk; run the model on full batches, and at the end of a shard on the rest."""
        for name, seconds in chunk.busy_seconds.items():
            self._add_busy(name, seconds)
        self.sample_ids += chunk.sample_ids
        self._reject(chunk.rejected)
        if chunk.rejected:  # Where nothing can be read, no batch comes to the model, and the budget is to stop it.
            self._tell()
        self.waiting.append(chunk.batch)
        batch_size = self.model_stage.resources.batch_size
        num_waiting = sum(batch.num_rows for batch in self.waiting)
        if num_waiting >= batch_size or chunk.is_last:
            rows = pa.concat_batches(self.waiting)
            num_left = 0 if chunk.is_last else num_waiting % batch_size
            for start in range(0, num_waiting - num_left, batch_size):
                self._run_model(rows.slice(start, batch_size))
            self.waiting = [rows.slice(num_waiting - num_left)] if num_left else []
        if chunk.is_last:
            self._commit(chunk.shard)

    def _run_model(self, batch: pa.RecordBatch) -> None:
        started = time.perf_counter()
        result = run_isolating(self.model_stage, batch)
        self._add_busy(self.model_stage.name, time.perf_counter() - started)
        self.done.append(result.batch)
        self.num_done += result.batch.num_rows
        self._reject(result.rejected)
        self._tell()

    def _reject(self, rows: tuple[RejectedRow, ...]) -> None:
        self.rejected += rows
        self.num_done += len(rows)
        self.reasons.update(f"{row.stage}/{row.error_class}" for row in rows)

    def _commit(self, shard: int) -> None:
        """Write the shard; a failure is noted and the next shard begins, a full disk ends the run."""
        sample_ids, batches, rejected = self.sample_ids, self.done, self.rejected
        self.sample_ids, self.done, self.rejected = [], [], []
        started = time.perf_counter()
        try:
            part = self.writer.commit(shard, sample_ids=sample_ids, batches=batches, rejected=rejected)
        except (OSError, BadDataError) as error:
            self.failures[shard] = str(error)
            return
        finally:
            self._add_busy(COMMIT, time.perf_counter() - started)
        self.parts.append(part)
        self._tell(part)

    def _tell(self, committed: PartEntry | None = None) -> None:
        self.on_progress(
            Progress(num_done=self.num_done, reasons=self.reasons, committed=committed, stages=self.timings(self))
        )

    def _add_busy(self, name: str, seconds: float) -> None:
        self.busy_seconds[name] = self.busy_seconds.get(name, 0.0) + seconds

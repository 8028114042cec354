"""The driver's side of a run on Ray: gathers rows by shard, and commits a shard when its last row is there.

Rows may arrive in any order and, after a worker died, more than once; a shard is whole when every id of the plan has
arrived, and the first row of an id counts. Commits run in threads, so the stream goes on meanwhile; when too many are
under way the stream waits, so that finished shards do not pile up in memory.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engine import COMMIT, Progress
from pipelines.engines.ray_data.rows import REJECTED_STAGE, REJECTION, one_batch, rejected_rows
from pipelines.engines.ray_data.workers import MODEL_WORKER, NUM_PLANNED, SHARD
from pipelines.errors import BadDataError
from pipelines.runs.commit import ShardWriter
from pipelines.runs.plan import Plan
from schemas.manifest import PartEntry

#: Threads that commit; a commit is mostly compression, which frees the interpreter, and waiting for storage.
NUM_COMMIT_THREADS = 4


@dataclass(kw_only=True)
class _OpenShard:
    """Rows of a shard that have arrived."""

    num_planned: int
    seen: set[str] = field(default_factory=set)
    tables: list[pa.Table] = field(default_factory=list)


@dataclass(kw_only=True)
class Collector:
    """Rows in, committed shards out; use as a context manager, which waits for the commits under way.

    Attributes:
        plan: The plan, read again by each commit: the stream is not trusted with what belongs to a shard.
        writer: Commits a shard.
        on_progress: Told after each block and each commit.
        stage_names: Stages whose busy seconds the rows carry.
    """

    plan: Plan
    writer: ShardWriter
    on_progress: Callable[[Progress], None]
    stage_names: tuple[str, ...]
    parts: list[PartEntry] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    busy_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    model_workers: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    num_done: int = 0
    _open: dict[int, _OpenShard] = field(default_factory=dict)
    _closed: set[int] = field(default_factory=set)
    _commits: dict["Future[tuple[PartEntry, float]]", int] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(NUM_COMMIT_THREADS, thread_name_prefix="commit")
    )

    def __enter__(self) -> "Collector":
        """Ready."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the commits under way, drop those not begun; whoever runs again makes up for them."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, rows: pa.Table) -> None:
        """Add a block of rows, and commit the shards it completes."""
        # In the order of the stream, so that shards that were begun first are committed first.
        for shard in pc.unique(rows[SHARD]).to_pylist():
            of_shard = rows.filter(pc.equal(rows[SHARD], shard))
            self._add(shard, of_shard)
        self._tell()
        self._gather(must_finish=False)

    def finish_commits(self) -> None:
        """Wait for all commits under way."""
        while self._commits:
            self._gather(must_finish=True)

    def left_of(self, shards: list[int]) -> list[int]:
        """Those of some shards that are neither committed nor failed; what arrived of them is forgotten."""
        for shard in self._open:
            for table in self._open[shard].tables:
                self._count(table, sign=-1)
        self._open.clear()
        return [shard for shard in shards if shard not in self._closed]

    def fail(self, shards: list[int], reason: str) -> None:
        """Give shards up."""
        self.failures.update(dict.fromkeys(shards, reason))

    def _add(self, shard: int, rows: pa.Table) -> None:
        if shard in self._closed:
            return
        num_planned = rows[NUM_PLANNED][0].as_py()
        opened = self._open.setdefault(shard, _OpenShard(num_planned=num_planned))
        is_new = []
        for sample_id in rows["sample_id"].to_pylist():
            is_new.append(sample_id is not None and sample_id not in opened.seen)
            if sample_id is not None:
                opened.seen.add(sample_id)
        rows = rows.filter(pa.array(is_new, pa.bool_()))
        if rows.num_rows:
            opened.tables.append(rows)
            self._count(rows, sign=1)
        if len(opened.seen) == opened.num_planned:
            del self._open[shard]
            self._closed.add(shard)
            self._commits[self._pool.submit(self._commit, shard, opened.tables)] = shard

    def _count(self, rows: pa.Table, *, sign: int) -> None:
        """Add rows to what is told, or take them back."""
        self.num_done += sign * rows.num_rows
        for row in rejected_rows(rows):
            self.reasons[f"{row.stage}/{row.error_class}"] += sign
        for name in self.stage_names:
            self.busy_seconds[name] += sign * (pc.sum(rows[f"_busy_{name}"]).as_py() or 0.0)
        self.model_workers.update(pc.unique(rows[MODEL_WORKER]).drop_null().to_pylist())

    def _commit(self, shard: int, tables: list[pa.Table]) -> tuple[PartEntry, float]:
        """Write a shard; runs in a thread."""
        started = time.perf_counter()
        rejected = [row for table in tables for row in rejected_rows(table)]
        good = [table.filter(pc.is_null(table[REJECTED_STAGE])).drop_columns(list(REJECTION)) for table in tables]
        part = self.writer.commit(
            shard,
            sample_ids=self.plan.read_shard(shard)["sample_id"].to_pylist(),
            batches=[one_batch(table) for table in good if table.num_rows],
            rejected=rejected,
        )
        return part, time.perf_counter() - started

    def _gather(self, *, must_finish: bool) -> None:
        """Take in finished commits; wait for some if they are too many.

        Raises:
            StorageFullError: If there is no room for a shard.
        """
        if self._commits and (must_finish or len(self._commits) > 2 * NUM_COMMIT_THREADS):
            wait(self._commits, return_when="FIRST_COMPLETED")
        for commit in [commit for commit in self._commits if commit.done()]:
            shard = self._commits.pop(commit)
            try:
                part, seconds = commit.result()
            except (OSError, BadDataError) as error:
                self.failures[shard] = str(error)
                continue
            self.busy_seconds[COMMIT] += seconds
            self.parts.append(part)
            self._tell(part)

    def _tell(self, committed: PartEntry | None = None) -> None:
        reasons = +self.reasons  # Without those taken back.
        self.on_progress(Progress(num_done=self.num_done, reasons=reasons, committed=committed))

"""The engine: runs the pipeline of a run, watches what it commits, and reports.

A batch pipeline groups rows by shard, and so commits nothing before all rows of it are through. On this machine
the shards are therefore run in several pipelines, one after another: what an interruption costs, and the memory
the rows take, stay bounded. A cluster gets one pipeline; starting a job there takes minutes.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.engine import COMMIT, EngineReport, Progress
from pipelines.engines.beam.local_signals import LocalSignals, SignalReader
from pipelines.engines.beam.model_handler import StageModelHandler
from pipelines.engines.beam.options import num_local_workers, open_pipeline, parse_options, runs_here, uses_processes
from pipelines.engines.beam.running import LocalPipeline, RemotePipeline, RunningPipeline
from pipelines.engines.beam.tally import Tally, Totals
from pipelines.engines.beam.transforms import TokenizeShards
from pipelines.errors import StorageFullError
from pipelines.runs.commit import ShardWriter
from pipelines.runs.manifest import quarantine_reasons
from pipelines.runs.plan import Plan
from pipelines.stages.stage import Stage
from schemas.manifest import PartEntry, StageTiming

#: Rows of one pipeline on this machine: about 100 MB of decoded pictures and tokens.
_ROWS_PER_LOCAL_PIPELINE = 2048


@dataclass(kw_only=True)
class BeamEngine:
    """Places stages in Beam's workers.

    Attributes:
        feeding_stages: Stages before the model, in order: reading and decoding.
        model_stage: The stage behind RunInference.
        num_workers: Worker processes on this machine, >= 1; None where the runner is another's.
        options: Beam's own options, such as `--runner=DataflowRunner`. Default: run on this machine.
        rows_per_chunk: Rows one worker reads and decodes at a time.
        shards_per_pipeline: Shards one pipeline does. Default: on this machine about 2,048 rows of them, and at
            least one each worker; all of them elsewhere.
        share_model: Load the model once a machine, not once a process. Default: if it takes a share of a GPU.
        poll_seconds: How often a runner elsewhere is asked how far it is.
    """

    feeding_stages: Sequence[Stage]
    model_stage: Stage
    num_workers: int | None = None
    options: Sequence[str] = ()
    rows_per_chunk: int = 8
    shards_per_pipeline: int | None = None
    share_model: bool | None = None
    poll_seconds: float = 30.0

    def run_shards(
        self,
        plan: Plan,
        shards: Sequence[int],
        writer: ShardWriter,
        on_progress: Callable[[Progress], None],
    ) -> EngineReport:
        """Process shards and commit each; see `pipelines.engine.Engine`.

        The workers commit. `on_progress` is called while a pipeline runs and for each shard that is found committed;
        if it raises, the pipeline is cancelled.

        Raises:
            UsageError: If the options are not Beam's.
            ShardsFailedError: If the pipeline as a whole failed.
        """
        options = parse_options(self.options, num_workers=self.num_workers)
        is_local = runs_here(options)
        started = time.perf_counter()
        watch = _Watch(wanted=frozenset(shards), writer=writer, on_progress=on_progress)
        totals = Totals()
        with tempfile.TemporaryDirectory(prefix="spae-beam-") as folder:
            signals = LocalSignals(folder=Path(folder)) if is_local else None
            reader = SignalReader(folder=Path(folder))
            for some in self._portions(shards, options, writer):
                pipeline = self._pipeline(plan, some, writer, options, signals)
                running: RunningPipeline
                if signals is not None:
                    running = LocalPipeline(pipeline, signals=signals, reader=reader)
                else:
                    running = RemotePipeline(pipeline, poll_seconds=self.poll_seconds)
                totals.add(self._finish(running, watch))
                self._refuse_full_disk(totals)
        missing = [shard for shard in shards if shard not in watch.parts]
        return EngineReport(
            parts=tuple(watch.parts[shard] for shard in sorted(watch.parts)),
            failures={shard: _reason(shard, totals) for shard in missing},
            num_processed=totals.num_done,
            wall_seconds=time.perf_counter() - started,
            stages=self._timings(totals, time.perf_counter() - started, num_local_workers(options) if is_local else 1),
        )

    def _portions(
        self, shards: Sequence[int], options: PipelineOptions, writer: ShardWriter
    ) -> Iterator[Sequence[int]]:
        """The shards of each pipeline, in order."""
        size = self.shards_per_pipeline
        if size is None:
            size = len(shards)
            if runs_here(options):
                settings = writer.config.settings
                by_rows = _ROWS_PER_LOCAL_PIPELINE * settings.num_shards // max(1, settings.num_inputs)
                size = max(1, by_rows, num_local_workers(options))
        for start in range(0, len(shards), max(1, size)):
            yield shards[start : start + size]

    def _pipeline(
        self,
        plan: Plan,
        shards: Sequence[int],
        writer: ShardWriter,
        options: PipelineOptions,
        signals: LocalSignals | None,
    ) -> beam.Pipeline:
        tally = Tally(signals=signals)
        handler = StageModelHandler(
            self.model_stage,
            tally=tally,
            share_across_processes=self.share_model,
            num_threads=_threads_per_process(options),
        )
        pipeline = open_pipeline(options)
        _ = (
            pipeline
            | "Shards" >> beam.Create(list(shards))
            | "Tokenize shards"
            >> TokenizeShards(
                plan,
                writer,
                feeding_stages=self.feeding_stages,
                handler=handler,
                rows_per_chunk=self.rows_per_chunk,
                tally=tally,
            )
        )
        return pipeline

    def _finish(self, running: RunningPipeline, watch: "_Watch") -> Totals:
        """Watch a pipeline to its end; whatever stops the watching stops the pipeline."""
        try:
            while not running.is_over():
                watch.look(running.progress())
        except BaseException:
            running.stop()
            raise
        try:
            return running.outcome()
        finally:
            watch.look(running.progress())

    def _refuse_full_disk(self, totals: Totals) -> None:
        for error_class, message in totals.failures.values():
            if error_class == StorageFullError.__name__:
                raise StorageFullError(message)

    def _timings(self, totals: Totals, wall_seconds: float, num_workers: int) -> dict[str, StageTiming]:
        """Busy seconds by stage; the workers run all stages in turn, so they share what is left as idle time."""
        names = [*(stage.name for stage in self.feeding_stages), self.model_stage.name, COMMIT]
        idle = max(0.0, num_workers * wall_seconds - sum(totals.busy_seconds.values()))
        return {
            name: StageTiming(
                busy_seconds=totals.busy_seconds.get(name, 0.0), wait_seconds=idle, num_workers=num_workers
            )
            for name in names
        }


@dataclass(kw_only=True)
class _Watch:
    """Finds shards as they get committed, whoever commits them, and tells how far the run is."""

    wanted: frozenset[int]
    writer: ShardWriter
    on_progress: Callable[[Progress], None]
    parts: dict[int, PartEntry] = field(default_factory=dict)
    num_committed: int = 0
    committed_reasons: Counter[str] = field(default_factory=Counter)
    _told: tuple[int, int] = (0, 0)

    def look(self, counted: Totals) -> None:
        """Tell of each new shard, or of new rows if there is none.

        Args:
            counted: What the workers counted; a runner without metrics counts nothing, then the committed rows
                are what is known.
        """
        new = self.writer.committed(self.wanted - self.parts.keys())
        for shard in sorted(new):
            part = self.writer.entry(shard)
            self.parts[shard] = part
            self.num_committed += part.num_rows + part.num_quarantined
            self.committed_reasons.update(quarantine_reasons(self.writer.storage, [part]))
            self._tell(counted, part)
        now = (counted.num_done, sum(counted.reasons.values()))
        if not new and now != self._told:
            self._tell(counted, None)
        self._told = now

    def _tell(self, counted: Totals, part: PartEntry | None) -> None:
        reasons = max(counted.reasons, self.committed_reasons, key=lambda counts: sum(counts.values()))
        num_done = max(counted.num_done, self.num_committed)
        self.on_progress(Progress(num_done=num_done, reasons=reasons, committed=part))


def _threads_per_process(options: PipelineOptions) -> int | None:
    """Threads for torch in each process of this machine, so that all of them together use each core once."""
    if not (runs_here(options) and uses_processes(options)):
        return None
    from os import cpu_count

    return max(1, (cpu_count() or 1) // num_local_workers(options))


def _reason(shard: int, totals: Totals) -> str:
    """Why a shard is missing after its pipeline."""
    if shard in totals.failures:
        return totals.failures[shard][1]
    return f"shard {shard}: expected a committed file, got none and no reason. Look at the runner's own log."

"""A pipeline that is running: here, where Beam's runner must be helped, or on a cluster, which needs no help."""

import os
import re
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn, Protocol

import apache_beam as beam
from apache_beam.runners.runner import PipelineResult, PipelineState

from pipelines import errors as pipeline_errors
from pipelines.engines.beam.local_signals import LocalSignals, SignalReader
from pipelines.engines.beam.tally import Totals
from pipelines.errors import PipelineError, ShardsFailedError, UsageError
from spae_core import errors as model_errors
from spae_core.errors import ModelError

#: Time in which a pipeline ends after its workers have; one that takes longer waits for a worker that died.
_SECONDS_AFTER_WORKERS = 30.0

#: The last line of a worker's traceback, when it is one of our own errors.
_OWN_ERROR = re.compile(
    r"^(?:pipelines|spae_core)\.errors\.(\w+): (.+?)(?= \[while running|\n\n|\nTraceback|\Z)", re.MULTILINE | re.DOTALL
)


class RunningPipeline(Protocol):
    """A pipeline under way, as the engine watches it."""

    def is_over(self) -> bool:
        """Wait a moment; True once it has ended, however it did."""
        ...

    def progress(self) -> Totals:
        """Counts so far; only `num_done` and `reasons` are sure to be there."""
        ...

    def stop(self) -> None:
        """End it early and wait till it commits nothing more."""
        ...

    def outcome(self) -> Totals:
        """Counts of a pipeline that is over.

        Raises:
            PipelineError: If it failed, as the error a worker raised where that is one of ours.
        """
        ...


class LocalPipeline:
    """Beam's runner of this machine, in a thread, since it does not come back before its pipeline has ended."""

    def __init__(self, pipeline: beam.Pipeline, *, signals: LocalSignals, reader: SignalReader) -> None:
        self._pipeline, self._signals, self._reader = pipeline, signals, reader
        self._result: PipelineResult | None = None
        self._error: BaseException | None = None
        self._worker_gone_since: float | None = None
        self._lost_worker: int | None = None
        self._thread = threading.Thread(target=self._run, name="beam-pipeline", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._pipeline.run()
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits)
            self._error = error

    def is_over(self) -> bool:
        """Wait a tenth of a second; over is also a pipeline that waits for a worker that died."""
        self._thread.join(0.1)
        if not self._thread.is_alive():
            return True
        self._reader.read()
        gone = [pid for pid in self._reader.workers if not _is_alive(pid)]
        if not gone:
            self._worker_gone_since = None
            return False
        now = time.monotonic()
        self._worker_gone_since = self._worker_gone_since or now
        if now - self._worker_gone_since > _SECONDS_AFTER_WORKERS:
            self._lost_worker = gone[0]
        return self._lost_worker is not None

    def progress(self) -> Totals:
        """What the workers told, in all pipelines since the reader began."""
        self._reader.read()
        return Totals(num_done=self._reader.num_done, reasons=self._reader.reasons)

    def stop(self) -> None:
        """Ask the workers to drop what is left, and wait for the batches they are at."""
        self._signals.ask_to_stop()
        while not self.is_over():
            pass

    def outcome(self) -> Totals:
        """Counts, or the error."""
        if self._lost_worker is not None:
            raise ShardsFailedError(
                f"Beam worker {self._lost_worker}: expected a process that ends with its pipeline, got one that was "
                "killed (out of memory?). Run the same command again, with fewer --num-workers; the shards that "
                "are committed are kept."
            )
        if self._error is not None:
            raise_original(self._error)
        assert self._result is not None
        return Totals.of(self._result)


class RemotePipeline:
    """A pipeline of a runner that gives a handle to watch and cancel it: Dataflow, Flink.

    Raises:
        UsageError: If the runner wants other options, or a package of it is absent.
        ShardsFailedError: If it does not take the job.
    """

    def __init__(self, pipeline: beam.Pipeline, *, poll_seconds: float) -> None:
        self._poll = threading.Event()
        self._poll_seconds = poll_seconds
        try:
            self._result = pipeline.run()
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"options after --: expected what {type(pipeline.runner).__name__} needs, got: {error}. "
                "Add what is missing and run the same command again."
            ) from error
        except RuntimeError as error:
            raise ShardsFailedError(
                f"Beam pipeline: expected {type(pipeline.runner).__name__} to take it, got: {error}. "
                "Check that its service can be reached, then run the same command again."
            ) from error

    def is_over(self) -> bool:
        """Wait `poll_seconds`, then ask the runner."""
        if PipelineState.is_terminal(self._result.state):
            return True
        self._poll.wait(self._poll_seconds)
        return bool(PipelineState.is_terminal(self._result.state))

    def progress(self) -> Totals:
        """The runner's metrics as of now."""
        return Totals.of(self._result)

    def stop(self) -> None:
        """Cancel the job and wait for the runner to say so."""
        self._result.cancel()
        while not self.is_over():
            pass

    def outcome(self) -> Totals:
        """Counts, or the error the runner tells."""
        try:
            state = self._result.wait_until_finish()
        except RuntimeError as error:
            raise_original(error)
        if self._result.state != PipelineState.DONE:
            raise ShardsFailedError(
                f"Beam pipeline: expected it to end as {PipelineState.DONE}, got {state or self._result.state}. "
                "Look at the runner's own log, then run the same command again."
            )
        return Totals.of(self._result)


def raise_original(error: BaseException) -> NoReturn:
    """Raise the error of ours that made a worker fail: Beam hands over its text, with the step's name added.

    Raises:
        PipelineError: Or ModelError, if the text ends in one of them; `error` itself otherwise.
    """
    found = _OWN_ERROR.findall("".join(traceback.format_exception_only(error)))
    if found:
        name, message = found[-1]
        for module in (pipeline_errors, model_errors):
            own = getattr(module, name, None)
            if isinstance(own, type) and issubclass(own, (PipelineError, ModelError)):
                raise own(message.strip()) from None
    raise error


def _is_alive(pid: int) -> bool:
    """Whether a process of ours is running; one that ended and was not waited for is not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return not Path("/proc").is_dir() and _answers(pid)
    return status.rpartition(")")[2].split()[0] != "Z"


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

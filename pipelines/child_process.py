"""Run a stage in a child process, so that a crash there (a fault of a library, the memory killer) ends it alone.

Run as a program (`python -m pipelines.child_process`) this file is the child: it answers one request after the other
on its standard input and output until the input ends, which it also does when the parent is killed. Requests and
answers are length-prefixed pickles; batches travel as Arrow IPC. Children are started without copying the parent,
so threads, models and GPU contexts of the parent are no concern, and idle ones are kept for the next request.
"""

import atexit
import os
import pickle
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from typing import BinaryIO

import pyarrow as pa

from pipelines.batch_bytes import batch_from_bytes, batch_to_bytes
from pipelines.errors import PipelineError
from pipelines.stages.stage import Stage, StageResult

_LENGTH_BYTES = 8
_READY = b"ready"


class ChildDiedError(Exception):
    """The child ended before it answered; the message says how, e.g. `signal SIGSEGV`."""


class ChildStartError(PipelineError):
    """A child cannot even start: a fault of the machine or the installation, not of a row."""


class StageChild:
    """One child process; not for use by two threads at once."""

    def __init__(self) -> None:
        # The child finds the code where this process does, also on a worker that was sent it.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.child_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._answers: BinaryIO = self._process.stdout  # type: ignore[assignment]
        if _receive(self._answers) != _READY:
            raise ChildStartError(
                f"child process of {sys.executable}: expected it to start, got {self._end()}. "
                "Its own message is above; check the memory and the installation."
            )

    def run(self, stage: Stage, batch: pa.RecordBatch) -> StageResult:
        """Run a stage there; it is set up on its first use.

        Raises:
            ChildDiedError: If the child dies of it; this object is of no use any more.
            Exception: Whatever the stage raises.
        """
        try:
            _send(self._requests, pickle.dumps((pickle.dumps(stage), batch_to_bytes(batch))))
            answer = _receive(self._answers)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise ChildDiedError(self._end())
        error, data, rejected = pickle.loads(answer)
        if error is not None:
            raise error
        return StageResult(batch=batch_from_bytes(data), rejected=rejected)

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._process.kill()
        self._end()

    def _end(self) -> str:
        """Wait for the child's end, and say how it ended."""
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()
        code = self._process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


#: Children without work; any thread takes one and puts it back.
_idle: list[StageChild] = []


def run_in_child(stage: Stage, batch: pa.RecordBatch) -> StageResult:
    """Run a stage in a child process of its own.

    Args:
        stage: A stage of an importable module.
        batch: Rows for it.

    Raises:
        ChildDiedError: If the child dies of it.
        ChildStartError: If no child can be started.
        Exception: Whatever the stage raises.
    """
    try:
        child = _idle.pop()
    except IndexError:
        child = StageChild()
    try:
        result = child.run(stage, batch)
    except BaseException:
        # Also after Ctrl-C, with an answer still under way: the next request would be given it.
        child.close()
        raise
    _idle.append(child)
    return result


def end_idle_children() -> None:
    """End the children that are kept; the next request starts a new one."""
    while _idle:
        _idle.pop().close()


atexit.register(end_idle_children)
os.register_at_fork(after_in_child=_idle.clear)


def _serve() -> None:
    """The child's side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair.
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Libraries that print must not print into the answers.
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    _send(answers, _READY)
    known, stage = b"", None
    while (request := _receive(requests)) is not None:
        try:
            pickled, data = pickle.loads(request)
            if stage is None or pickled != known:
                stage = pickle.loads(pickled)
                stage.setup()
                known = pickled
            result = stage.run(batch_from_bytes(data))
            answer = pickle.dumps((None, batch_to_bytes(result.batch), result.rejected))
        except Exception as error:  # noqa: BLE001  (raised again by the parent)
            answer = pickle.dumps((_portable(error), None, ()))
        _send(answers, answer)


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the way to the parent, else a TypeError that tells all of it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (pickling runs code of the error's class)
        return TypeError("".join(traceback.format_exception(error)))
    return error


def _send(pipe: BinaryIO, message: bytes) -> None:
    pipe.write(len(message).to_bytes(_LENGTH_BYTES, "big"))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: BinaryIO) -> bytes | None:
    """The next message, or None if the other side has ended."""
    header = pipe.read(_LENGTH_BYTES)
    if len(header) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(header, "big")
    message = pipe.read(length)
    return message if len(message) == length else None


if __name__ == "__main__":
    # A parent that ended while a stage ran waits for no answer: the child ends too, without a word.
    with suppress(BrokenPipeError):
        _serve()

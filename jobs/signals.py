"""Ctrl-C and SIGTERM as exceptions, so that a command unwinds in good order and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes of a process ended by SIGINT and by SIGTERM."""

#: Code object names an import that is under way; the file name is Python's own for its import system.
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"

_SECONDS_BETWEEN_LOOKS = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled like Ctrl-C, with its own exit code."""


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGINT and Terminated for SIGTERM in the block.

    The first signal stops the work in good order, which may have to wait for a file that is being read, or for an
    import: torn in the middle, one leaves half a package behind, which then fails wherever it is used on the way out.
    The second one ends the process at once: what is committed is safe in any case.

    Signals reach only the main thread; in another one the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    answer = _Answer()
    previous = {number: signal.signal(number, answer.receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        answer.is_over = True
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Answer:
    """What the first and what the second signal do."""

    def __init__(self) -> None:
        self.is_over = False
        self._first: int | None = None
        self._is_postponed = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_postponed:
            self._is_postponed = False  # our own, sent again
        elif self._first is None:
            self._first = number
        else:
            os._exit(TERMINATED if number == signal.SIGTERM else INTERRUPTED)
        if _is_importing(frame):
            self._is_postponed = True
            timer = threading.Timer(_SECONDS_BETWEEN_LOOKS, self._send_again, (number,))
            timer.daemon = True
            timer.start()
            return
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _send_again(self, number: int) -> None:
        if not self.is_over:
            os.kill(os.getpid(), number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False

"""What a command says: results on standard output; progress and notes on standard error.

On a terminal progress is a bar with rate and time left; elsewhere, in a log, a plain line now and then.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds between two lines of a log.
_SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line that is not part of the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class ProgressDisplay:
    """How far long work is; use as a context manager.

    Args:
        title: What is being done, e.g. `tokenizing`.
        total: Number of items to do.
        unit: What the items are, plural.
    """

    def __init__(self, title: str, *, total: int, unit: str = "pictures") -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressDisplay":
        """Show the bar, or the first line of a log."""
        if not sys.stderr.isatty():
            note(f"{self.title}: {self.total} {self.unit}")
            return self
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[remark]}"),
            console=Console(stderr=True),
        )
        self._bar.add_task(self.title, total=self.total, rate="", remark="")
        self._bar.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar's hands off the terminal."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, num_done: int, remark: str = "") -> None:
        """Show how far the work is.

        Args:
            num_done: Items done so far.
            remark: What else is worth knowing, e.g. `3 quarantined`.
        """
        now = time.monotonic()
        rate = num_done / max(now - self._started, 1e-9)
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=num_done, rate=f"{rate:.1f} {self.unit}/s", remark=remark)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self.total - num_done) / rate if rate else float("inf")
            line = f"{self.title}: {num_done} of {self.total} {self.unit}, {rate:.1f}/s, {left:.0f} s left"
            note(f"{line}, {remark}" if remark else line)

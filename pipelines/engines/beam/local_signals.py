"""What the driver and the workers of one machine tell each other while a pipeline runs.

Beam's own runner for one machine shows its metrics only when a pipeline has ended, and cannot be stopped. So
each worker appends its counts to a file of a temporary folder, and another file there asks all of them to stop.
Runners on other machines need none of this: they show metrics meanwhile and can be cancelled.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_STOP = "stop"
_COUNTS_SUFFIX = ".counts"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSignals:
    """The workers' end, and the request to stop.

    Attributes:
        folder: A folder for one call of the engine; it exists as long as the call.
    """

    folder: Path

    def tell(self, num_done: int, reasons: Mapping[str, int]) -> None:
        """Add to the counts of this worker thread.

        Args:
            num_done: Rows that got through, good or rejected.
            reasons: Rejected ones among them, by `stage/error_class`.
        """
        name = f"{os.getpid()}-{threading.get_ident()}{_COUNTS_SUFFIX}"
        with (self.folder / name).open("a") as file:
            file.write(json.dumps([num_done, reasons]) + "\n")

    def ask_to_stop(self) -> None:
        """Let every worker drop the rows it has yet to process, and commit nothing from now on."""
        (self.folder / _STOP).touch()

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked to stop."""
        return (self.folder / _STOP).exists()


@dataclass(kw_only=True, slots=True)
class SignalReader:
    """The driver's end: sums up what the workers wrote, each line once.

    Attributes:
        folder: The folder of the `LocalSignals`.
        num_done: Rows told so far.
        reasons: Rejected ones among them, by `stage/error_class`.
        workers: Process ids that wrote.
    """

    folder: Path
    num_done: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    workers: set[int] = field(default_factory=set)
    _positions: dict[str, int] = field(default_factory=dict)

    def read(self) -> None:
        """Take in the lines written since the last call; a line still being written waits for the next."""
        for path in sorted(self.folder.glob(f"*{_COUNTS_SUFFIX}")):
            position = self._positions.get(path.name, 0)
            with path.open("rb") as file:
                file.seek(position)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._positions[path.name] = position + len(whole)
            self.workers.add(int(path.name.partition("-")[0]))
            for line in whole.splitlines():
                num_done, reasons = json.loads(line)
                self.num_done += num_done
                self.reasons.update(reasons)

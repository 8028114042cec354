"""Read planned records out of containers: the workers' side of tars and Parquet files.

A process keeps the containers it reads open, the most recently used ones, so that the many records a shard has of
one container cost one opening. Memory and disk are bounded: by the number of open containers, and by what each of
them may hold.

- A plain tar: one range of bytes a record, no reading ahead.
- A compressed tar: unpacked once into a temporary file without a name, as far as it is asked for; then like a
  plain one.
- A Parquet file: blocks of rows, decoded in order; the last few stay in memory.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import Any

from pipelines.readers.file_kinds import FileKind, kind_of
from pipelines.readers.open_container import OpenContainer, ReplacedContainerError
from pipelines.readers.parquet_rows import ParquetRows
from pipelines.readers.places import RemoteFile, local_entry
from pipelines.readers.tar_members import open_tar

#: Containers that a process keeps open.
_MOST_OPEN = 16


class Containers:
    """The containers that a process has open."""

    def __init__(self, most_open: int = _MOST_OPEN) -> None:
        self._most_open = most_open
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, str | None], _Entry] = OrderedDict()
        self.num_opened = 0

    def read(self, record: Mapping[str, Any], *, size_bytes: int | None, planned_stamp: str | None) -> bytes:
        """The encoded picture of a record.

        Args:
            record: A value of the plan's column `record`, without a problem.
            size_bytes: Size that was planned, or None.
            planned_stamp: The container's etag or time of change as planned, or None.

        Raises:
            DamagedContainerError: If the container is damaged there.
            ReplacedContainerError: If it is not the one that was planned.
            OSError: If storage fails.
        """
        key = (record["container"], planned_stamp)
        with self._lock:
            entry = self._open.setdefault(key, _Entry())
            self._open.move_to_end(key)
            entry.num_readers += 1
        try:
            with entry.lock:
                if entry.container is None:
                    entry.container = _open(*key)
                    self.num_opened += 1
            return entry.container.read(record, size_bytes)
        finally:
            with self._lock:
                entry.num_readers -= 1
                self._close_oldest()

    def _close_oldest(self) -> None:
        idle = [key for key, entry in self._open.items() if not entry.num_readers]
        for key in idle[: max(0, len(self._open) - self._most_open)]:
            container = self._open.pop(key).container
            if container is not None:
                container.close()


class _Entry:
    """A place among the open containers; opened by the first who needs it, closed when nobody reads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.container: OpenContainer | None = None
        self.num_readers = 0


@cache
def process_containers() -> Containers:
    """The open containers of this process; they outlive the stages, which engines make anew for each task."""
    return Containers()


def _open(uri: str, planned_stamp: str | None) -> OpenContainer:
    remote = RemoteFile(uri) if "://" in uri else None
    stamp = remote.stamp if remote else local_entry(uri).etag_or_mtime
    if planned_stamp is not None and stamp is not None and stamp != planned_stamp:
        raise ReplacedContainerError(
            f"container {uri}: expected the one that was planned ({planned_stamp}), got another ({stamp})."
        )
    if kind_of(uri) is FileKind.PARQUET:
        return ParquetRows(uri)
    return open_tar(uri, remote)

"""Fetch the bytes of each input; what cannot be fetched is rejected with the system's own reason."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import fsspec
import pyarrow as pa

from pipelines.readers.open_container import DamagedContainerError, ReplacedContainerError
from pipelines.readers.record_reading import process_containers
from pipelines.stages.stage import RejectedRow, Resources, Stage, StageResult
from pipelines.storage import driver_errors_as_os_error

#: Error class of rows whose container is cut off or damaged where they lie.
DAMAGED_CONTAINER = "DamagedContainer"

#: Errors of storage that a later try cannot mend.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

#: Columns that end here; only rows inside containers need the last two.
_OWN_COLUMNS = ("sample_id", "uri", "size_bytes", "etag_or_mtime", "record")


class _UnfitFileError(OSError):
    """The file is not the one that was planned, or larger than allowed; trying again cannot help."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


@dataclass(frozen=True, kw_only=True)
class ReadInputs(Stage):
    """Read whole files and records of containers, local or behind any fsspec url.

    Containers stay open between calls, for the whole process: `pipelines.readers.record_reading`.

    Attributes:
        max_size_bytes: Larger files are rejected unread.
        num_tries: Tries a file gets when storage fails in passing, >= 1.
        retry_seconds: Pause before the second try; doubled before each further one.
        batch_size: Most rows of one `run`; that many files are in memory at once.
    """

    name = "read_inputs"

    max_size_bytes: int = 1 << 30
    num_tries: int = 3
    retry_seconds: float = 0.5
    batch_size: int = 8

    INPUT_SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [("sample_id", pa.string()), ("uri", pa.string()), ("size_bytes", pa.int64())]
    )
    OUTPUT_SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [("sample_id", pa.string()), ("uri", pa.string()), ("bytes", pa.large_binary())]
    )

    @property
    def resources(self) -> Resources:
        """Little CPU: it waits for storage most of the time."""
        return Resources(num_cpus=0.25, batch_size=self.batch_size)

    @property
    def input_schema(self) -> pa.Schema:
        """`sample_id`, `uri`, `size_bytes` (null if unknown); a plan's `record` and `etag_or_mtime` if there."""
        return self.INPUT_SCHEMA

    @property
    def output_schema(self) -> pa.Schema:
        """`sample_id`, `uri`, `bytes`."""
        return self.OUTPUT_SCHEMA

    def run(self, batch: pa.RecordBatch) -> StageResult:
        """Read a batch; see `Stage.run`. Size, stamp and record end here, all other columns are passed through."""
        self.check_input(batch)
        kept: list[int] = []
        contents: list[bytes] = []
        rejected: list[RejectedRow] = []
        own = [name for name in _OWN_COLUMNS if name in batch.schema.names]
        for index, row in enumerate(batch.select(own).to_pylist()):
            try:
                content = self.read_one(row)
            except OSError as error:
                rejected.append(
                    RejectedRow(
                        sample_id=row["sample_id"],
                        uri=row["uri"],
                        stage=self.name,
                        error_class=error_class_of(error),
                        message=str(error),
                    )
                )
            else:
                kept.append(index)
                contents.append(content)
        rows = pa.array(kept, pa.int64())
        columns = [
            batch["sample_id"].take(rows),
            batch["uri"].take(rows),
            pa.array(contents, pa.large_binary()),
        ]
        passed = [name for name in self.passed_through(batch) if name not in own]
        fields = [*self.OUTPUT_SCHEMA, *(batch.schema.field(name) for name in passed)]
        columns += [batch[name].take(rows) for name in passed]
        good = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
        return StageResult(batch=good, rejected=tuple(rejected))

    def read_one(self, row: Mapping[str, Any]) -> bytes:
        """One file or record, tried again when storage fails in passing.

        Args:
            row: `uri`, `size_bytes`, and for a record of a container `record` and `etag_or_mtime`, as in a plan.

        Raises:
            OSError: If it cannot be had, has changed since it was planned, or is too large; `error_class_of` has
                the class.
        """
        size_bytes = row["size_bytes"]
        if size_bytes is not None and size_bytes > self.max_size_bytes:
            raise _UnfitFileError(
                "FileTooLarge",
                f"size of the file: expected at most {self.max_size_bytes} bytes, got {size_bytes}. "
                "Shrink the picture.",
            )
        for tries_left in reversed(range(self.num_tries)):
            try:
                content = self._read_once(row)
                break
            except (*_LASTING, _UnfitFileError):
                raise
            except OSError:
                if not tries_left:
                    raise
                time.sleep(self.retry_seconds * 2 ** (self.num_tries - 1 - tries_left))
        if size_bytes is not None and len(content) != size_bytes:
            raise _changed(f"size of the file: expected {size_bytes} bytes as planned, got {len(content)}.")
        return content

    def _read_once(self, row: Mapping[str, Any]) -> bytes:
        if row.get("record"):
            return self._read_record(row)
        uri = row["uri"]
        protocol, separator, _ = uri.partition("://")
        if not separator:
            with open(uri, "rb") as file:
                return file.read()
        with driver_errors_as_os_error():
            if protocol not in self._filesystems:
                self._filesystems[protocol] = fsspec.core.url_to_fs(uri)[0]
            return bytes(self._filesystems[protocol].cat_file(uri))

    def _read_record(self, row: Mapping[str, Any]) -> bytes:
        record = row["record"]
        if record["problem"] is not None:
            raise _UnfitFileError(DAMAGED_CONTAINER, record["problem"])
        try:
            return process_containers().read(
                record, size_bytes=row["size_bytes"], planned_stamp=row.get("etag_or_mtime")
            )
        except DamagedContainerError as error:
            raise _UnfitFileError(DAMAGED_CONTAINER, str(error)) from error
        except ReplacedContainerError as error:
            raise _changed(str(error)) from error

    @cached_property
    def _filesystems(self) -> dict[str, fsspec.AbstractFileSystem]:
        """Drivers opened so far, by protocol."""
        return {}


def error_class_of(error: OSError) -> str:
    """The class under which the quarantine lists an error of reading."""
    return getattr(error, "error_class", type(error).__name__)


def _changed(what: str) -> _UnfitFileError:
    return _UnfitFileError("ChangedSincePlanned", f"{what} Leave the inputs alone while a run is under way.")

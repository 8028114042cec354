"""Fetch the bytes of each input; what cannot be fetched is rejected with the system's own reason."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import fsspec
import pyarrow as pa

from pipelines.stages.stage import RejectedRow, Resources, Stage, StageResult
from pipelines.storage import driver_errors_as_os_error

#: Errors of storage that a later try cannot mend.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class _UnfitFileError(OSError):
    """The file is not the one that was planned, or larger than allowed; trying again cannot help."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


@dataclass(frozen=True, kw_only=True)
class ReadInputs(Stage):
    """Read whole files, local or behind any fsspec url.

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
        """`sample_id`, `uri`, `size_bytes` (null if unknown)."""
        return self.INPUT_SCHEMA

    @property
    def output_schema(self) -> pa.Schema:
        """`sample_id`, `uri`, `bytes`."""
        return self.OUTPUT_SCHEMA

    def run(self, batch: pa.RecordBatch) -> StageResult:
        """Read a batch; see `Stage.run`. The `size_bytes` column ends here."""
        self.check_input(batch)
        kept: list[int] = []
        contents: list[bytes] = []
        rejected: list[RejectedRow] = []
        ids, uris, sizes = (batch[name].to_pylist() for name in self.INPUT_SCHEMA.names)
        for row, (sample_id, uri, size_bytes) in enumerate(zip(ids, uris, sizes, strict=True)):
            try:
                content = self._read(uri, size_bytes)
            except OSError as error:
                error_class = getattr(error, "error_class", type(error).__name__)
                rejected.append(
                    RejectedRow(
                        sample_id=sample_id,
                        uri=uri,
                        stage=self.name,
                        error_class=error_class,
                        message=str(error),
                    )
                )
            else:
                kept.append(row)
                contents.append(content)
        rows = pa.array(kept, pa.int64())
        columns = [
            batch["sample_id"].take(rows),
            batch["uri"].take(rows),
            pa.array(contents, pa.large_binary()),
        ]
        passed = self.passed_through(batch)
        fields = [*self.OUTPUT_SCHEMA, *(batch.schema.field(name) for name in passed)]
        columns += [batch[name].take(rows) for name in passed]
        good = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
        return StageResult(batch=good, rejected=tuple(rejected))

    def _read(self, uri: str, size_bytes: int | None) -> bytes:
        """One file, tried again when storage fails in passing.

        Raises:
            OSError: If it cannot be had, has changed since it was planned, or is too large.
        """
        if size_bytes is not None and size_bytes > self.max_size_bytes:
            raise _UnfitFileError(
                "FileTooLarge",
                f"size of the file: expected at most {self.max_size_bytes} bytes, got {size_bytes}. "
                "Shrink the picture.",
            )
        for tries_left in reversed(range(self.num_tries)):
            try:
                content = self._read_once(uri)
                break
            except _LASTING:
                raise
            except OSError:
                if not tries_left:
                    raise
                time.sleep(self.retry_seconds * 2 ** (self.num_tries - 1 - tries_left))
        if size_bytes is not None and len(content) != size_bytes:
            raise _UnfitFileError(
                "ChangedSincePlanned",
                f"size of the file: expected {size_bytes} bytes as planned, got {len(content)}. "
                "Leave the inputs alone while a run is under way.",
            )
        return content

    def _read_once(self, uri: str) -> bytes:
        protocol, separator, _ = uri.partition("://")
        if not separator:
            with open(uri, "rb") as file:
                return file.read()
        with driver_errors_as_os_error():
            if protocol not in self._filesystems:
                self._filesystems[protocol] = fsspec.core.url_to_fs(uri)[0]
            return bytes(self._filesystems[protocol].cat_file(uri))

    @cached_property
    def _filesystems(self) -> dict[str, fsspec.AbstractFileSystem]:
        """Drivers opened so far, by protocol."""
        return {}

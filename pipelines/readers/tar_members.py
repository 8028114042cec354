"""Members of a tar by their place: plain or compressed, on this machine or behind an fsspec url."""

import gzip
import os
import tempfile
import threading
import zlib
from collections.abc import Mapping
from typing import Any

from pipelines.readers.file_kinds import is_gzipped
from pipelines.readers.open_container import DamagedContainerError, OpenContainer
from pipelines.readers.places import RemoteFile, open_for_reading

_BLOCK_BYTES = 1 << 20


def open_tar(uri: str, remote: RemoteFile | None) -> OpenContainer:
    """Open a tar.

    Args:
        uri: Its path or url; the name says whether it is compressed.
        remote: The same file if it is remote, as opened already.

    Raises:
        OSError: If it cannot be reached.
    """
    if is_gzipped(uri):
        return _CompressedTar(uri)
    return _RemoteTar(remote) if remote else _LocalTar(uri)


class _LocalTar(OpenContainer):
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, record: Mapping[str, Any], size_bytes: int | None) -> bytes:
        return _read_range(self._descriptor, record["offset_bytes"], size_bytes or 0)

    def close(self) -> None:
        os.close(self._descriptor)


class _RemoteTar(OpenContainer):
    def __init__(self, file: RemoteFile) -> None:
        self._file = file

    def read(self, record: Mapping[str, Any], size_bytes: int | None) -> bytes:
        start, size = record["offset_bytes"], size_bytes or 0
        if start + size > self._file.size_bytes:
            raise DamagedContainerError(f"expected {size} bytes at {start}, got the end of the archive. Copy it again.")
        return self._file.fetch(start, size) if size else b""


class _CompressedTar(OpenContainer):
    """Unpacked to a temporary file (set TMPDIR for its place), as far as records were asked for."""

    def __init__(self, uri: str) -> None:
        self._source = open_for_reading(uri)
        self._unpacker = gzip.GzipFile(fileobj=self._source)
        self._unpacked = tempfile.TemporaryFile(prefix="spae-tar-")  # noqa: SIM115  (closed by `close`)
        self._num_unpacked = 0
        self._lock = threading.Lock()

    def read(self, record: Mapping[str, Any], size_bytes: int | None) -> bytes:
        start, size = record["offset_bytes"], size_bytes or 0
        with self._lock:
            try:
                while self._num_unpacked < start + size and (block := self._unpacker.read1(_BLOCK_BYTES)):
                    self._unpacked.write(block)
                    self._num_unpacked += len(block)
                self._unpacked.flush()
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DamagedContainerError(
                    f"archive: expected gzip to its end, got: {error}. Copy it again."
                ) from error
        return _read_range(self._unpacked.fileno(), start, size)

    def close(self) -> None:
        self._source.close()
        self._unpacked.close()


def _read_range(descriptor: int, start: int, size: int) -> bytes:
    content = os.pread(descriptor, size, start)
    while 0 < len(content) < size and (more := os.pread(descriptor, size - len(content), start + len(content))):
        content += more
    if len(content) != size:
        raise DamagedContainerError(f"expected {size} bytes at {start}, got {len(content)}. Copy the archive again.")
    return content

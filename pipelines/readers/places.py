"""Files wherever they are: opened, described and named the same way on this machine and behind fsspec urls."""

import io
import os
import posixpath
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO, cast

import fsspec

from pipelines.errors import UsageError
from pipelines.readers.entry import InputEntry
from pipelines.storage import driver_errors_as_os_error

#: Bytes that one request to an object store fetches when a container is read in order.
_REQUEST_BYTES = 4 << 20

#: Where drivers keep what changes with the content, best first.
_STAMP_KEYS = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "updated", "created")

_GLOB_CHARACTERS = frozenset("*?[")


class UnreachableError(OSError):
    """Storage did not answer as it should; says nothing about the content."""


class RemoteFile(io.RawIOBase):
    """A file behind an fsspec url, read by ranges. Errors of every driver come out as `UnreachableError`."""

    def __init__(self, uri: str) -> None:
        """Ask for the size.

        Args:
            uri: Url with its protocol.

        Raises:
            FileNotFoundError: If there is no such file.
            UnreachableError: If storage does not answer.
        """
        with driver_errors_as_os_error():
            self._filesystem, self._path = fsspec.core.url_to_fs(uri)
            info = self._filesystem.info(self._path)
        self.stamp = stamp_of(info)
        self.size_bytes = int(info["size"])
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is fetched."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (any writable buffer)
        """Fetch one range."""
        wanted = min(len(buffer), self.size_bytes - self._position)
        if wanted <= 0:
            return 0
        content = self.fetch(self._position, wanted)
        buffer[:wanted] = content
        self._position += wanted
        return wanted

    def fetch(self, start: int, num_bytes: int) -> bytes:
        """A range of bytes, in one request; safe to call from several threads.

        Raises:
            UnreachableError: If storage fails or gives fewer bytes than it promised.
        """
        try:
            with driver_errors_as_os_error():
                content = bytes(self._filesystem.cat_file(self._path, start=start, end=start + num_bytes))
        except OSError as error:
            raise UnreachableError(f"{self._path}: {error}") from error
        if len(content) != num_bytes:
            raise UnreachableError(f"{self._path}: expected {num_bytes} bytes at {start}, got {len(content)}.")
        return content


def open_for_reading(uri: str) -> BinaryIO:
    """Open a local path or an fsspec url for buffered, seekable reading; the caller closes it.

    Raises:
        OSError: If it cannot be opened.
    """
    if "://" not in uri:
        return open(uri, "rb")
    return cast(BinaryIO, io.BufferedReader(RemoteFile(uri), _REQUEST_BYTES))


def stamp_of(info: Mapping[str, Any]) -> str | None:
    """What changes with the content of a remote file, from its driver's description."""
    stamp = next((info[key] for key in _STAMP_KEYS if info.get(key)), None)
    # Some drivers give a moment as a date in one call and as seconds in another.
    return None if stamp is None else str(stamp.timestamp() if isinstance(stamp, datetime) else stamp)


def local_entry(path: str) -> InputEntry:
    """Size and time of change; unknown for a link that leads nowhere, which the quarantine will report."""
    try:
        status = os.stat(path)
    except OSError:
        return InputEntry(uri=path, size_bytes=None, etag_or_mtime=None)
    return InputEntry(uri=path, size_bytes=status.st_size, etag_or_mtime=str(status.st_mtime_ns))


def entry_of_reference(text: str, *, source: str) -> InputEntry:
    """The picture that a list or a uri column names.

    Args:
        text: An fsspec url, an absolute path, or a path relative to the folder of the list.
        source: Path or url of the list.

    Returns:
        Its entry; the size of a remote file is unknown, since asking for each would take a request each.

    Raises:
        UsageError: If it names a command (`pipe:`) or a chain of drivers.
    """
    refuse_commands(text, f"input {text!r} in {source}")
    protocol, separator, rest = text.partition("://")
    if separator and protocol not in ("file", "local"):
        return InputEntry(uri=text, size_bytes=None, etag_or_mtime=None)
    path = rest if separator else text
    if os.path.isabs(path):
        return local_entry(os.path.normpath(path))
    protocol, separator, rest = source.partition("://")
    if not separator:
        return local_entry(os.path.normpath(os.path.join(os.path.dirname(source), path)))
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(rest), path))
    return InputEntry(uri=f"{protocol}://{joined}", size_bytes=None, etag_or_mtime=None)


def refuse_commands(text: str, what: str) -> None:
    """Refuse what would run a command or be opened by a chain of drivers.

    Raises:
        UsageError: If it does.
    """
    if text.lower().lstrip().startswith("pipe:"):
        raise UsageError(f"{what}: expected a path or url, got a command to run. Give the place its output comes from.")
    if "::" in text and "://" in text:
        raise UsageError(f"{what}: expected one path or url, got a chain of them. Unpack it and give the folder.")


def is_glob(path: str) -> bool:
    """Whether a path has the characters of a pattern."""
    return any(character in _GLOB_CHARACTERS for character in path)


def is_utf8(path: str) -> bool:
    """Whether a name can be stored as text; Linux allows any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

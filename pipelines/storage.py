"""Where a run is written: a local folder or an object store, with the one operation commits rest on.

`Storage.create` makes a file *only if it is absent*, whole or not at all, however many processes try: a hard
link of a finished temporary file on a local disk, an upload with a precondition on an object store. First
writer wins. Paths are relative to the run's root and use `/`.
"""

import contextlib
import errno
import fcntl
import os
import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

import fsspec

from pipelines.conditional_create import create_object
from pipelines.errors import StorageFullError, UsageError
from pipelines.preconditions import object_version, upload_if_version

#: Where local files are built before they appear under their name: the same disk, but outside `data/`.
TEMPORARY_FOLDER = ".tmp"
_LOCK_NAME = "commit.lock"

#: Protocols whose `pipe_file(mode="create")` is one atomic request; fsspec's generic one looks, then writes.
_PROTOCOLS_WITH_PRECONDITION = frozenset({"gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "memory"})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Storage(ABC):
    """Files under one root."""

    @abstractmethod
    def url(self, path: str = "") -> str:
        """Full path or url of a file, for messages and other programs."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a folder, sorted; empty if there is no such folder."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; the caller closes it. Parquet readers seek in it."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Make a file only if it is absent, whole or not at all.

        Returns:
            True if this call made it, False if it was there before.

        Raises:
            StorageFullError: If there is no room; nothing is left behind.
        """

    @abstractmethod
    def replace(self, path: str, data: bytes) -> None:
        """Make a file or replace it, whole or not at all; for files that are not commits.

        Raises:
            StorageFullError: If there is no room; an old file stays as it was.
        """

    @abstractmethod
    def version(self, path: str) -> str:
        """Something that changes whenever the file is replaced; ask for it *before* reading the content."""

    @abstractmethod
    def replace_version(self, path: str, data: bytes, version: str) -> bool:
        """Replace a file, whole or not at all, if it is still the version that was seen.

        Returns:
            True if this call replaced it, False if somebody else had.

        Raises:
            StorageFullError: If there is no room; the old file stays.
            UsageError: If the store has no such precondition.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the root ready for writing.

        Raises:
            UsageError: If it cannot be written to.
        """

    def clean(self) -> None:  # noqa: B027  (object stores leave nothing behind)
        """Remove what killed processes left behind; whoever is still writing is not disturbed."""

    def read_bytes(self, path: str) -> bytes:
        """The whole content of a file."""
        with self.open(path) as file:
            return file.read()


class LocalStorage(Storage):
    """A folder of this machine or of a shared disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def url(self, path: str = "") -> str:
        """Absolute path."""
        return str(self.root / path)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return (self.root / path).is_file()

    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a folder, sorted."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_file())
        except FileNotFoundError:
            return []

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        return (self.root / path).open("rb")

    def create(self, path: str, data: bytes) -> bool:
        """Hard-link a finished temporary file under the final name: the link fails if the name is taken."""
        target = self.root / path
        with clear_error_if_full(f"output {self.url(path)}"), self._temporary(data) as temporary:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return self._rename_under_lock(temporary, target)
            return True

    def replace(self, path: str, data: bytes) -> None:
        """Rename a finished temporary file over the final name."""
        target = self.root / path
        with clear_error_if_full(f"output {self.url(path)}"), self._temporary(data) as temporary:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)

    def version(self, path: str) -> str:
        """Inode, size and time of the file: a rename brings another inode."""
        status = (self.root / path).stat()
        return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"

    def replace_version(self, path: str, data: bytes, version: str) -> bool:
        """Compare and rename under a lock that every such call takes."""
        target = self.root / path
        with clear_error_if_full(f"output {self.url(path)}"), self._temporary(data) as temporary, self._commit_lock():
            if self.version(path) != version:
                return False
            temporary.replace(target)
            return True

    def delete(self, path: str) -> None:
        """Unlink the file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (self.root / path).unlink()

    def prepare(self) -> None:
        """Make the folder and try a small file in it."""
        try:
            with self._temporary(b"spae"):
                pass
        except OSError as error:
            raise UsageError(
                f"output {self.root}: expected a folder that can be written to, got: {error.strerror}. "
                "Choose another --out."
            ) from error

    def clean(self) -> None:
        """Remove temporary files of dead processes of this machine, and their folder if nobody uses it."""
        folder = self.root / TEMPORARY_FOLDER
        for name in self.names(TEMPORARY_FOLDER):
            pid, _, _ = name.partition("-")
            if pid.isdecimal() and name.endswith(f"@{socket.gethostname()}") and not _is_alive(int(pid)):
                (folder / name).unlink(missing_ok=True)
        if self.names(TEMPORARY_FOLDER) == [_LOCK_NAME]:
            with self._commit_lock():
                (folder / _LOCK_NAME).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()

    @contextlib.contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        """A temporary file with these bytes, on disk and read back; gone at the end unless renamed."""
        folder = self.root / TEMPORARY_FOLDER
        temporary = folder / f"{os.getpid()}-{uuid.uuid4().hex}@{socket.gethostname()}"
        try:
            with _open_in(folder, temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if temporary.read_bytes() != data:
                raise OSError(errno.EIO, "the file read back differs from what was written", str(temporary))
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _rename_under_lock(self, temporary: Path, target: Path) -> bool:
        """Create-if-absent on disks without hard links (FAT, some network mounts)."""
        with self._commit_lock():
            if target.exists():
                return False
            temporary.rename(target)
            return True

    @contextlib.contextmanager
    def _commit_lock(self) -> Iterator[None]:
        """A lock among the processes that write here; a dead holder's is free again."""
        path = self.root / TEMPORARY_FOLDER / _LOCK_NAME
        while True:
            with _open_in(path.parent, path, "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Whoever cleaned up meanwhile removed this file: the others lock a new one.
                if _is_at(lock, path):
                    yield
                    return


class ObjectStorage(Storage):
    """A prefix of an object store that honours create-if-absent."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")

    def url(self, path: str = "") -> str:
        """Url with its protocol."""
        return cast(str, self.filesystem.unstrip_protocol(self._full(path)))

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        with driver_errors_as_os_error():
            return cast(bool, self.filesystem.isfile(self._full(path)))

    def names(self, folder: str = "") -> list[str]:
        """Names of the objects directly under a prefix, sorted; never from a cached listing."""
        prefix = self._full(folder)
        self.filesystem.invalidate_cache(prefix)
        try:
            with driver_errors_as_os_error():
                entries = self.filesystem.ls(prefix, detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")

    def open(self, path: str) -> BinaryIO:
        """Open for reading by ranges."""
        with driver_errors_as_os_error():
            return cast(BinaryIO, self.filesystem.open(self._full(path), "rb"))

    def create(self, path: str, data: bytes) -> bool:
        """Upload with the precondition that the object does not exist."""
        with driver_errors_as_os_error():
            return create_object(self.filesystem, self._full(path), data)

    def replace(self, path: str, data: bytes) -> None:
        """Upload; object stores show the old object or the new one, never a part."""
        with driver_errors_as_os_error():
            self.filesystem.pipe_file(self._full(path), data)

    def version(self, path: str) -> str:
        """Generation or ETag of the object."""
        with driver_errors_as_os_error():
            return object_version(self.filesystem, self._full(path))

    def replace_version(self, path: str, data: bytes, version: str) -> bool:
        """Upload with the precondition that the object is still this version."""
        with driver_errors_as_os_error():
            return upload_if_version(self.filesystem, self._full(path), data, version)

    def delete(self, path: str) -> None:
        """Remove the object."""
        with contextlib.suppress(FileNotFoundError), driver_errors_as_os_error():
            self.filesystem.rm_file(self._full(path))

    def prepare(self) -> None:
        """Nothing to make: prefixes come with their first object."""

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root


@contextlib.contextmanager
def driver_errors_as_os_error() -> Iterator[None]:
    """Turn what drivers of object stores raise of their own (HTTP errors, time-outs) into OSError.

    Raises:
        OSError: One of Python's own, which unlike a driver's survives the way to another process; with the driver's
            message, and its error as the cause.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and type(error).__module__ == "builtins":
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error


def _open_in(folder: Path, path: Path, mode: Literal["wb", "ab"]) -> BinaryIO:
    """Open a new file in a folder that another process may be removing because it is empty."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return cast(BinaryIO, path.open(mode))
        except FileNotFoundError:
            if folder.is_dir():
                raise


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def clear_error_if_full(what: str) -> Iterator[None]:
    """Turn a full disk into one clear error.

    Args:
        what: What is being written, for the message.

    Raises:
        StorageFullError: If the block fails for want of room, quota or file size.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFullError(
            f"{what}: expected room for the file, got: {error.strerror or error}. "
            "Free some space (or raise the quota), then run the same command again."
        ) from error


def open_storage(url: str | Path) -> Storage:
    """Choose the storage of a run by its url.

    Args:
        url: A local path, `file://…`, or any fsspec url of a store that can create a file only if it is
            absent.

    Raises:
        UsageError: If the store cannot do that, or its driver is not installed.
    """
    text = str(url)
    protocol, separator, rest = text.partition("://")
    if not separator:
        return LocalStorage(Path(text).expanduser().absolute())
    if protocol in ("file", "local"):
        return LocalStorage(Path(rest).absolute())
    if protocol not in _PROTOCOLS_WITH_PRECONDITION:
        raise UsageError(
            f"output {text}: expected a store that can create a file only if it is absent,"
            f" got {protocol}://, where two writers could overwrite each other."
            " Write to a local folder, gs:// or s3://, then copy."
        )
    try:
        filesystem, root = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"output {text}: expected a url fsspec can open, got: {error}. Install the driver it names."
        ) from error
    return ObjectStorage(filesystem, root)

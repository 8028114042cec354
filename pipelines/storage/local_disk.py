"""A folder of this machine or of a shared disk: finished temporary files under hard links and locks."""

import contextlib
import errno
import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

from pipelines.errors import UsageError
from pipelines.storage.failures import clear_error_if_full
from pipelines.storage.interface import Storage

#: Where local files are built before they appear under their name: the same disk, but outside `data/`.
TEMPORARY_FOLDER = ".tmp"
_LOCK_NAME = "commit.lock"

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


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

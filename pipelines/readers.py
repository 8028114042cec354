"""Find the inputs of a run: folders, globs and single files, on this machine or behind any fsspec url.

A reader lists its inputs as a stream, so a plan of any size needs little memory. `open_inputs` chooses the
reader of each INPUT of the command line. What a reader leaves out it counts and says; a file given by its own
name is always taken, whatever its extension, and if it is no picture it ends in the quarantine with its
reason.

uri: the absolute path of a local file as it is, or the url with its protocol (`gs://bucket/photos/a.jpg`).
"""

import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from pipelines.errors import UsageError

#: Extensions a folder or a glob takes, compared without regard to case.
IMAGE_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "heic", "heif", "jfif", "jp2"),
        *("jpe", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp"),
    )
)

#: Containers, which need readers of their own; said plainly instead of one quarantined row.
_CONTAINER_EXTENSIONS = frozenset(
    f".{name}" for name in ("tar", "zip", "parquet", "jsonl", "csv", "mp4", "mov", "avi", "mkv", "webm")
)

#: Where drivers keep what changes with the content, best first.
_STAMP_KEYS = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "updated", "created")

_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputEntry:
    """One input as listed.

    Attributes:
        uri: Where its bytes are.
        size_bytes: Size in bytes, or None if unknown.
        etag_or_mtime: Something that changes when the content does, or None if unknown.
    """

    uri: str
    size_bytes: int | None
    etag_or_mtime: str | None


@dataclass(kw_only=True, slots=True)
class ListingNotes:
    """What a listing left out; filled while it runs.

    Attributes:
        num_ignored: Files that are no pictures by extension, or hidden.
        problems: One line for each folder or name that could not be read.
    """

    num_ignored: int = 0
    problems: list[str] = field(default_factory=list)


class InputReader(ABC):
    """One INPUT of the command line."""

    @abstractmethod
    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """List the inputs in a stable order, in little memory.

        Args:
            notes: Where to count what is left out.

        Raises:
            UsageError: If the place itself cannot be listed.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFileReader(InputReader):
    """One file of this machine, given by name."""

    path: Path

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """The file itself, whatever its extension."""
        yield _local_entry(str(self.path))


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFolderReader(InputReader):
    """All pictures under a folder of this machine, in subfolders too.

    Links to folders are followed, each real folder once, so loops end. Hidden files and folders are left out.
    """

    root: Path

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """Walk depth first, names in order."""
        seen: set[tuple[int, int]] = set()
        waiting = [str(self.root)]
        while waiting:
            folder = waiting.pop()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as scan:
                    children = sorted(scan, key=lambda child: child.name)
            except OSError as error:
                notes.problems.append(f"{folder}: cannot be listed ({error.strerror})")
                continue
            subfolders = []
            for child in children:
                if child.name.startswith("."):
                    notes.num_ignored += 1
                elif child.is_dir():
                    subfolders.append(child.path)
                elif not _is_image(child.name) or not (child.is_file() or child.is_symlink()):
                    notes.num_ignored += 1
                elif not _is_utf8(child.path):
                    notes.problems.append(_no_text(child.path))
                else:
                    yield _local_entry(child.path)
            waiting.extend(reversed(subfolders))


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteReader(InputReader):
    """A file, a folder or a glob behind an fsspec url.

    Attributes:
        filesystem: Driver of the url's protocol.
        path: Path inside it, without the protocol.
    """

    filesystem: fsspec.AbstractFileSystem
    path: str

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """The file itself; or the pictures below the folder or matching the glob, folder by folder."""
        if _is_glob(self.path):
            try:
                matches = self.filesystem.glob(self.path, detail=True)
            except ValueError as error:
                raise UsageError(
                    f"input {self.path}: expected a pattern, got: {error}. Write `**/` between folders."
                ) from error
            yield from self._pictures(sorted(matches.values(), key=lambda info: info["name"]), notes)
        elif self.filesystem.isfile(self.path):
            yield self._entry(self.filesystem.info(self.path))
        else:
            for _folder, _subfolders, files in self.filesystem.walk(self.path, detail=True):
                yield from self._pictures(sorted(files.values(), key=lambda info: info["name"]), notes)

    def _pictures(self, infos: Iterable[dict[str, Any]], notes: ListingNotes) -> Iterator[InputEntry]:
        for info in infos:
            if info["type"] != "file":
                continue
            name = info["name"].rsplit("/", 1)[-1]
            if name.startswith(".") or not _is_image(name):
                notes.num_ignored += 1
            else:
                yield self._entry(info)

    def _entry(self, info: dict[str, Any]) -> InputEntry:
        stamp = next((info[key] for key in _STAMP_KEYS if info.get(key)), None)
        return InputEntry(
            uri=self.filesystem.unstrip_protocol(info["name"]),
            size_bytes=info.get("size"),
            etag_or_mtime=None if stamp is None else str(stamp),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalGlobReader(InputReader):
    """The pictures of this machine that match a pattern; `**` crosses folders."""

    pattern: str

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """Matching files in order; folders that match are not entered, and loops of links end."""
        seen: set[tuple[str, str]] = set()
        for path in sorted(glob.iglob(self.pattern, recursive=True)):
            folder, name = os.path.split(path)
            place = (os.path.realpath(folder), name)
            if os.path.isdir(path) or place in seen:
                continue
            seen.add(place)
            if not _is_image(name) or not (os.path.isfile(path) or os.path.islink(path)):
                notes.num_ignored += 1
            elif not _is_utf8(path):
                notes.problems.append(_no_text(path))
            else:
                yield _local_entry(path)


def open_inputs(inputs: Iterable[str]) -> list[InputReader]:
    """Choose the reader of each INPUT.

    Args:
        inputs: Folders, globs, files; local paths or fsspec urls.

    Raises:
        UsageError: If there are none, one does not exist, or one is of a kind that cannot be read.
    """
    readers = [_open_input(text) for text in inputs]
    if not readers:
        raise UsageError("inputs: expected at least one folder, glob or file, got none. Name one.")
    return readers


def list_inputs(readers: Iterable[InputReader], notes: ListingNotes) -> Iterator[InputEntry]:
    """The inputs of all readers, one after the other; doubles are the plan's business."""
    for reader in readers:
        yield from reader.entries(notes)


def _open_input(text: str) -> InputReader:
    protocol, separator, rest = text.partition("://")
    if separator and protocol not in ("file", "local"):
        try:
            filesystem, path = fsspec.core.url_to_fs(text)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"input {text}: expected a url fsspec can open, got: {error}. Install the driver it names."
            ) from error
        if not _is_glob(path):
            if not _exists(filesystem, path, text):
                raise _missing(text)
            if filesystem.isfile(path):
                _refuse_container(text)
        return RemoteReader(filesystem=filesystem, path=path)
    local = os.path.abspath(os.path.expanduser(rest if separator else text))
    if os.path.isdir(local):
        return LocalFolderReader(root=Path(local))
    # A file may have a star in its name; only what does not exist is a pattern.
    if os.path.lexists(local):
        _refuse_container(text)
        if not os.path.isfile(local) and not os.path.islink(local):
            raise UsageError(f"input {text}: expected a folder or a file, got a pipe or device. Save it as a file.")
        return LocalFileReader(path=Path(local))
    if _is_glob(local):
        return LocalGlobReader(pattern=local)
    raise _missing(text)


def _exists(filesystem: fsspec.AbstractFileSystem, path: str, text: str) -> bool:
    try:
        return bool(filesystem.exists(path))
    except OSError as error:
        raise UsageError(
            f"input {text}: expected a place that can be read, got: {error.strerror or error!r}. "
            "Check the name and your rights."
        ) from error


def _local_entry(path: str) -> InputEntry:
    """Size and time of change; unknown for a link that leads nowhere, which the quarantine will report."""
    try:
        status = os.stat(path)
    except OSError:
        return InputEntry(uri=path, size_bytes=None, etag_or_mtime=None)
    return InputEntry(uri=path, size_bytes=status.st_size, etag_or_mtime=str(status.st_mtime_ns))


def _refuse_container(text: str) -> None:
    if PurePosixPath(text).suffix.lower() in _CONTAINER_EXTENSIONS:
        raise UsageError(
            f"input {text}: expected a folder, a glob or a picture, got a container, "
            "which cannot be read yet. Unpack it and give the folder."
        )


def _missing(text: str) -> UsageError:
    return UsageError(
        f"input {text}: expected a folder, a glob or a file, got nothing of that name. Check the spelling."
    )


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def _is_glob(path: str) -> bool:
    return any(character in _GLOB_CHARACTERS for character in path)


def _no_text(path: str) -> str:
    return f"{os.fsencode(path)!r}: the name is not UTF-8; rename the file"


def _is_utf8(path: str) -> bool:
    """Whether a name can be stored as text; Linux allows any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Choose the reader of each INPUT, and make one stream of them all."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec

from pipelines.errors import UsageError
from pipelines.readers.entry import InputEntry, InputReader, ListingNotes, ReadOptions
from pipelines.readers.file_kinds import FileKind, kind_of
from pipelines.readers.local import LocalFileReader, LocalFolderReader, LocalGlobReader
from pipelines.readers.places import is_glob, refuse_commands
from pipelines.readers.remote import RemoteReader
from pipelines.storage import driver_errors_as_os_error

_MOST_NAMES_SHOWN = 40


def open_inputs(inputs: Iterable[str], options: ReadOptions | None = None) -> list[InputReader]:
    """Choose the reader of each INPUT.

    Args:
        inputs: Folders, globs, files, containers, lists; local paths or fsspec urls.
        options: How containers and lists are read. Default: their image column is found, nothing is kept.

    Raises:
        UsageError: If there are none, one does not exist, or one is of a kind that cannot be read.
    """
    readers = [_open_input(text, options or ReadOptions()) for text in inputs]
    if not readers:
        raise UsageError("inputs: expected at least one folder, glob or file, got none. Name one.")
    return readers


def list_inputs(
    readers: Iterable[InputReader], notes: ListingNotes, *, keep_columns: Iterable[str] = ()
) -> Iterator[InputEntry]:
    """The inputs of all readers, one after the other; doubles are the plan's business.

    Args:
        readers: From `open_inputs`.
        notes: Filled on the way.
        keep_columns: Columns that at least one input must have.

    Raises:
        UsageError: At the end, if a column is in none of them.
    """
    for reader in readers:
        yield from reader.entries(notes)
    absent = [name for name in keep_columns if name not in notes.columns]
    if absent:
        there = sorted(notes.columns)
        shown = ", ".join(there[:_MOST_NAMES_SHOWN]) or "no columns at all"
        more = f" and {len(there) - _MOST_NAMES_SHOWN} more" if len(there) > _MOST_NAMES_SHOWN else ""
        raise UsageError(
            f"--keep-columns: expected columns that an input has, got {', '.join(absent)}; there are {shown}{more}. "
            "Choose among these."
        )


def _open_input(text: str, options: ReadOptions) -> InputReader:
    refuse_commands(text, f"input {text}")
    protocol, separator, rest = text.partition("://")
    if separator and protocol not in ("file", "local"):
        return _open_remote(text, options)
    local = os.path.abspath(os.path.expanduser(rest if separator else text))
    if os.path.isdir(local):
        return LocalFolderReader(root=Path(local), options=options)
    # A file may have a star in its name; only what does not exist is a pattern.
    if os.path.lexists(local):
        _refuse_unsupported(text)
        if not os.path.isfile(local) and not os.path.islink(local):
            raise UsageError(f"input {text}: expected a folder or a file, got a pipe or device. Save it as a file.")
        return LocalFileReader(path=Path(local), options=options)
    if is_glob(local):
        return LocalGlobReader(pattern=local, options=options)
    raise _missing(text)


def _open_remote(text: str, options: ReadOptions) -> InputReader:
    try:
        filesystem, path = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"input {text}: expected a url fsspec can open, got: {error}. Install the driver it names."
        ) from error
    filesystem.invalidate_cache()  # what was listed earlier in this process may be gone
    if not is_glob(path):
        if not _exists(filesystem, path, text):
            raise _missing(text)
        if filesystem.isfile(path):
            _refuse_unsupported(text)
    return RemoteReader(filesystem=filesystem, path=path, options=options)


def _exists(filesystem: fsspec.AbstractFileSystem, path: str, text: str) -> bool:
    try:
        with driver_errors_as_os_error():
            return bool(filesystem.exists(path))
    except OSError as error:
        raise UsageError(
            f"input {text}: expected a place that can be read, got: {error.strerror or error!r}. "
            "Check the name and your rights."
        ) from error


def _refuse_unsupported(text: str) -> None:
    if kind_of(text) is FileKind.UNSUPPORTED:
        raise UsageError(
            f"input {text}: expected a picture, a tar, a Parquet file or a list, got a container "
            "that cannot be read yet. Unpack it and give the folder."
        )


def _missing(text: str) -> UsageError:
    return UsageError(
        f"input {text}: expected a folder, a glob or a file, got nothing of that name. Check the spelling."
    )

"""Folders, globs and files of this machine."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.readers.containers import entries_found_in_folder, entries_of_file, metadata_entries
from pipelines.readers.entry import InputEntry, InputReader, ListingNotes, ReadOptions
from pipelines.readers.file_kinds import METADATA_LISTS, FileKind, kind_of
from pipelines.readers.places import is_utf8, local_entry


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFileReader(InputReader):
    """One file of this machine, given by name: a picture whatever its extension, or a container."""

    path: Path
    options: ReadOptions

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """The file itself, or its records."""
        yield from entries_of_file(local_entry(str(self.path)), self.options, notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFolderReader(InputReader):
    """All pictures under a folder of this machine, in subfolders and in containers too.

    Links to folders are followed, each real folder once, so loops end. Hidden files and folders are left out.
    """

    root: Path
    options: ReadOptions

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """Walk depth first, names in order; a folder's own metadata list comes before its pictures."""
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
                    children = sorted(scan, key=lambda child: (child.name not in METADATA_LISTS, child.name))
            except OSError as error:
                notes.problems.append(f"{folder}: cannot be listed ({error.strerror})")
                continue
            subfolders = []
            for child in children:
                if child.is_dir() and not child.name.startswith("."):
                    subfolders.append(child.path)
                else:
                    yield from self._file(child, notes)
            waiting.extend(reversed(subfolders))

    def _file(self, child: "os.DirEntry[str]", notes: ListingNotes) -> Iterator[InputEntry]:
        if child.name.startswith(".") or not (child.is_file() or child.is_symlink()):
            notes.num_ignored += 1
        elif kind_of(child.name) is not FileKind.OTHER and not is_utf8(child.path):
            notes.problems.append(_no_text(child.path))
        elif child.name in METADATA_LISTS:
            yield from metadata_entries(local_entry(child.path), self.options, notes)
        else:
            yield from entries_found_in_folder(local_entry(child.path), self.options, notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalGlobReader(InputReader):
    """The pictures and containers of this machine that match a pattern; `**` crosses folders."""

    pattern: str
    options: ReadOptions

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """Matching files in order; folders that match are not entered, and loops of links end."""
        seen: set[tuple[str, str]] = set()
        for path in sorted(glob.iglob(self.pattern, recursive=True)):
            folder, name = os.path.split(path)
            place = (os.path.realpath(folder), name)
            if os.path.isdir(path) or place in seen:
                continue
            seen.add(place)
            if not is_taken_by_glob(name, self.pattern) or not (os.path.isfile(path) or os.path.islink(path)):
                notes.num_ignored += 1
            elif not is_utf8(path):
                notes.problems.append(_no_text(path))
            else:
                yield from entries_of_file(local_entry(path), self.options, notes)


def is_taken_by_glob(name: str, pattern: str) -> bool:
    """Whether a matching file counts: pictures and containers do, lists if the pattern is one of lists."""
    kind = kind_of(name)
    return kind in (FileKind.IMAGE, FileKind.TAR, FileKind.PARQUET) or kind is kind_of(pattern) is FileKind.LIST


def _no_text(path: str) -> str:
    return f"{os.fsencode(path)!r}: the name is not UTF-8; rename the file"

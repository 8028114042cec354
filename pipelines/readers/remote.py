"""Folders, globs and files behind fsspec urls: `gs://`, `s3://` and whatever else has a driver."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec

from pipelines.errors import UsageError
from pipelines.readers.containers import entries_found_in_folder, entries_of_file, metadata_entries
from pipelines.readers.entry import InputEntry, InputReader, ListingNotes, ReadOptions
from pipelines.readers.file_kinds import METADATA_LISTS
from pipelines.readers.local import is_taken_by_glob
from pipelines.readers.places import is_glob, stamp_of


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteReader(InputReader):
    """A file, a folder or a glob behind an fsspec url.

    Attributes:
        filesystem: Driver of the url's protocol.
        path: Path inside it, without the protocol.
        options: How to read containers.
    """

    filesystem: fsspec.AbstractFileSystem
    path: str
    options: ReadOptions

    def entries(self, notes: ListingNotes) -> Iterator[InputEntry]:
        """The file itself; or what lies below the folder or matches the glob, folder by folder."""
        if is_glob(self.path):
            yield from self._matches(notes)
        elif self.filesystem.isfile(self.path):
            yield from entries_of_file(self._entry(self.filesystem.info(self.path)), self.options, notes)
        else:
            for _folder, _subfolders, files in self.filesystem.walk(self.path, detail=True):
                yield from self._folder(files.values(), notes)

    def _matches(self, notes: ListingNotes) -> Iterator[InputEntry]:
        try:
            matches = self.filesystem.glob(self.path, detail=True)
        except ValueError as error:
            raise UsageError(
                f"input {self.path}: expected a pattern, got: {error}. Write `**/` between folders."
            ) from error
        for info in sorted(matches.values(), key=lambda info: info["name"]):
            name = info["name"].rsplit("/", 1)[-1]
            if info["type"] != "file":
                continue
            if name.startswith(".") or not is_taken_by_glob(name, self.path):
                notes.num_ignored += 1
            else:
                yield from entries_of_file(self._entry(info), self.options, notes)

    def _folder(self, infos: Iterable[dict[str, Any]], notes: ListingNotes) -> Iterator[InputEntry]:
        """The files of one folder, its own metadata list first."""
        named = {info["name"].rsplit("/", 1)[-1]: info for info in infos if info["type"] == "file"}
        for name in sorted(named, key=lambda name: (name not in METADATA_LISTS, name)):
            if name.startswith("."):
                notes.num_ignored += 1
            elif name in METADATA_LISTS:
                yield from metadata_entries(self._entry(named[name]), self.options, notes)
            elif name:
                yield from entries_found_in_folder(self._entry(named[name]), self.options, notes)

    def _entry(self, info: dict[str, Any]) -> InputEntry:
        return InputEntry(
            uri=self.filesystem.unstrip_protocol(info["name"]),
            size_bytes=info.get("size"),
            etag_or_mtime=stamp_of(info),
        )

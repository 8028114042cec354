"""A prefix of an object store: uploads under preconditions."""

import contextlib
from typing import BinaryIO, cast

import fsspec

from pipelines.storage.conditional_create import create_object
from pipelines.storage.failures import driver_errors_as_os_error
from pipelines.storage.interface import Storage
from pipelines.storage.preconditions import object_version, upload_if_version


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

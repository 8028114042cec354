"""What every storage can do."""

from abc import ABC, abstractmethod
from typing import BinaryIO


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

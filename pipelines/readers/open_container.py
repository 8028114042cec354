"""One container, open for its records: what tars and Parquet files have in common on the workers' side."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class DamagedContainerError(Exception):
    """A container is cut off or damaged where a record lies; no later try helps."""


class ReplacedContainerError(Exception):
    """A container is not the one that was planned."""


class OpenContainer(ABC):
    """One container, open; its records can be asked for from several threads."""

    @abstractmethod
    def read(self, record: Mapping[str, Any], size_bytes: int | None) -> bytes:
        """The encoded picture of a record.

        Args:
            record: A value of the plan's column `record`.
            size_bytes: Size that was planned; None for rows of tables.

        Raises:
            DamagedContainerError: If the container is damaged there.
            OSError: If storage fails.
        """

    def close(self) -> None:  # noqa: B027  (a remote tar holds nothing)
        """Let go of files; nobody is reading any more."""

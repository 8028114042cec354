"""What every reader gives: a stream of `InputEntry`, and notes on what it left out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Column names remembered for the message about one that is nowhere; JSON lists may have any number.
_MOST_COLUMNS_NOTED = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Where one picture lies inside a container; `schemas.plan.RECORD_TYPE`.

    Attributes:
        container: Path or url of the container.
        offset_bytes: Tar: first byte of the member, in the unpacked stream if the tar is compressed.
        row_group: Parquet: row group, from 0.
        row: Parquet: row inside the row group, from 0.
        column: Parquet: leaf column with the encoded picture.
        problem: Why nothing can be read here. The row is planned all the same, so that it is counted and
            ends in the quarantine.
    """

    container: str
    offset_bytes: int | None = None
    row_group: int | None = None
    row: int | None = None
    column: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InputEntry:
    """One input as listed.

    Attributes:
        uri: Where its bytes are; for a record of a container `<container>#<name of the record>`.
        size_bytes: Size of the encoded picture in bytes, or None if unknown.
        etag_or_mtime: Something that changes when the content does (of the container, for a record), or None
            if unknown.
        record: Where it lies inside its container, or None for a file of its own.
        shard_key: Records with equal keys come into one shard, because they are read together. Default: the
            uri, each for itself.
        kept: The user's own columns asked for: plain Python values, or Arrow scalars where the source is
            typed. A name that is missing is null.
    """

    uri: str
    size_bytes: int | None
    etag_or_mtime: str | None
    record: Record | None = None
    shard_key: str | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How inputs are read.

    Attributes:
        image_column: Column of Parquet files and lists that holds the picture or its uri. Default: found by
            name and type.
        keep_columns: The user's own columns to carry along, in this order.
    """

    image_column: str | None = None
    keep_columns: tuple[str, ...] = ()

    def kept(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns to keep of a row; None for those it lacks."""
        return {name: row.get(name) for name in self.keep_columns}


@dataclass(kw_only=True, slots=True)
class ListingNotes:
    """What a listing left out; filled while it runs.

    Attributes:
        num_ignored: Files that are no pictures by extension, or hidden.
        problems: One line for each folder or name that could not be read.
        columns: Names of the columns the inputs have, as far as they were looked at.
        has_metadata_lists: Whether a folder came with a list of its own pictures (`metadata.jsonl`); those are
            then named twice without anybody's doing.
    """

    num_ignored: int = 0
    problems: list[str] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    has_metadata_lists: bool = False

    def add_columns(self, names: Iterator[str] | Mapping[str, Any] | list[str]) -> None:
        """Note columns that an input has."""
        if len(self.columns) < _MOST_COLUMNS_NOTED:
            self.columns.update(names)


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


def damage(container: str, problem: str, *, stamp: str | None, name: str = "damaged") -> InputEntry:
    """The planned row that stands for what cannot be read of a container; it ends in the quarantine.

    Args:
        container: Path or url of the tar, Parquet file or list.
        problem: What is wrong and what to do.
        stamp: The container's etag or time of change.
        name: Which part of the container it is.
    """
    return InputEntry(
        uri=f"{container}#{name}",
        size_bytes=None,
        etag_or_mtime=stamp,
        record=Record(container=container, problem=problem),
    )

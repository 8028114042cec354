"""From a file that was found to the inputs it stands for: itself, or the records inside it."""

from collections.abc import Iterator

from pipelines.errors import UsageError
from pipelines.readers.entry import InputEntry, ListingNotes, ReadOptions
from pipelines.readers.file_kinds import FileKind, kind_of
from pipelines.readers.image_column import NoImageColumnError
from pipelines.readers.lists import list_file_entries
from pipelines.readers.parquet_tables import parquet_entries
from pipelines.readers.webdataset import tar_entries


def entries_of_file(file: InputEntry, options: ReadOptions, notes: ListingNotes) -> Iterator[InputEntry]:
    """The inputs of a file that was named: by itself, or by a glob that says its extension.

    Args:
        file: The file as listed; anything but a container is taken as a picture.
        options: How to read containers.
        notes: Where to count what is left out.

    Raises:
        UsageError: If it is a container that has no pictures, or that cannot be reached.
    """
    try:
        match kind_of(file.uri):
            case FileKind.TAR:
                yield from tar_entries(file, options, notes)
            case FileKind.PARQUET:
                yield from parquet_entries(file, options, notes)
            case FileKind.LIST:
                yield from list_file_entries(file, options, notes)
            case _:
                yield file
    except OSError as error:
        raise UsageError(
            f"input {file.uri}: expected a file that can be read, got: {error.strerror or error}. "
            "Check your rights and the connection, then run the command again."
        ) from error


def entries_found_in_folder(file: InputEntry, options: ReadOptions, notes: ListingNotes) -> Iterator[InputEntry]:
    """The inputs of a file that happens to lie in a folder: pictures, and containers that have some.

    Lists are left alone (they name what the folder holds anyway), and tables without pictures are said and passed
    over.
    """
    kind = kind_of(file.uri)
    if kind is FileKind.IMAGE:
        yield file
    elif kind in (FileKind.TAR, FileKind.PARQUET):
        yield from skipping_tables_without_pictures(file, options, notes)
    else:
        notes.num_ignored += 1


def metadata_entries(file: InputEntry, options: ReadOptions, notes: ListingNotes) -> Iterator[InputEntry]:
    """The pictures that a folder's own `metadata.jsonl` or `metadata.csv` names, with their columns."""
    notes.has_metadata_lists = True
    yield from skipping_tables_without_pictures(file, options, notes)


def skipping_tables_without_pictures(
    file: InputEntry, options: ReadOptions, notes: ListingNotes
) -> Iterator[InputEntry]:
    """As `entries_of_file`, but a table without pictures is a line in the notes."""
    try:
        yield from entries_of_file(file, options, notes)
    except NoImageColumnError as error:
        notes.num_ignored += 1
        notes.problems.append(str(error))

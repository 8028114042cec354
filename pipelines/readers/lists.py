"""Lists of pictures, JSONL or CSV: one column says where each picture is, the others may be kept.

A relative path is relative to the folder of the list. JSONL values keep their types; CSV has strings only, and an
empty field is null. A line that cannot be read is planned as such, and ends in the quarantine.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TextIO, cast

from pipelines.readers.entry import InputEntry, ListingNotes, ReadOptions, damage
from pipelines.readers.file_kinds import is_gzipped
from pipelines.readers.image_column import uri_column
from pipelines.readers.places import entry_of_reference, open_for_reading

#: Values of JSON that name a picture must be strings; CSV fields may be this long.
_LONGEST_CSV_FIELD = 16 << 20

#: A row of a list, or what is wrong with its line.
_Row = Mapping[str, Any] | str


def list_file_entries(file: InputEntry, options: ReadOptions, notes: ListingNotes) -> Iterator[InputEntry]:
    """The pictures that a list names, in order.

    Args:
        file: The list as found; `.csv`, `.tsv` or JSONL, perhaps compressed with gzip.
        options: The column with the pictures' uris, and the columns to keep.
        notes: Where to note the columns there are.

    Returns:
        An entry a line.

    Raises:
        NoImageColumnError: If no column says where the pictures are.
        OSError: If the list cannot be reached.
    """
    column = None
    line = 0
    with open_for_reading(file.uri) as raw:
        unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_gzipped(file.uri) else raw
        text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")
        try:
            for line, row in _rows(text, file.uri):
                if isinstance(row, str):
                    yield _bad_line(file, line, row)
                    continue
                column = column or uri_column(row, wanted=options.image_column, where=file.uri)
                notes.add_columns([name for name in row if name != column])
                reference = row.get(column)
                if not isinstance(reference, str) or not reference:
                    yield _bad_line(file, line, f"nothing in the column {column!r}")
                    continue
                found = entry_of_reference(reference, source=file.uri)
                yield InputEntry(
                    uri=found.uri,
                    size_bytes=found.size_bytes,
                    etag_or_mtime=found.etag_or_mtime,
                    kept=options.kept(row),
                )
        except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield _bad_line(file, line + 1, f"{error}; nothing behind it is read")


def _rows(text: TextIO, name: str) -> Iterator[tuple[int, _Row]]:
    """Number of the line, from 1, and what is in it; blank lines are left out."""
    lower = name.lower()
    if ".csv" in lower[-7:] or lower.endswith(".tsv"):
        yield from _csv_rows(text, "\t" if lower.endswith(".tsv") else ",")
    else:
        yield from _json_rows(text)


def _csv_rows(text: TextIO, delimiter: str) -> Iterator[tuple[int, _Row]]:
    csv.field_size_limit(_LONGEST_CSV_FIELD)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header = next(reader, [])
    for fields in reader:
        if fields and len(fields) != len(header):
            yield reader.line_num, f"{len(fields)} fields under a header of {len(header)}"
        elif fields:
            yield reader.line_num, {name: value or None for name, value in zip(header, fields, strict=True)}


def _json_rows(text: TextIO) -> Iterator[tuple[int, _Row]]:
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON ({error})"
        else:
            yield number, row if isinstance(row, dict) else f"{type(row).__name__} instead of an object"


def _bad_line(file: InputEntry, line: int, got: str) -> InputEntry:
    return damage(
        file.uri,
        f"line {line} of {file.uri}: expected a row that names a picture, got {got}. Mend the list.",
        stamp=file.etag_or_mtime,
        name=f"line={line}",
    )

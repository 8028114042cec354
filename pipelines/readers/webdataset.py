"""WebDataset tars: pictures with their captions and labels beside them, under one name.

A sample is a run of members whose names are equal up to the first dot: `000123.jpg`, `000123.json`,
`000123.txt`, `000123.cls`. Each picture of it is an input of its own. Only headers are read, and the neighbours when
columns are kept; the pictures themselves are read by the workers, a range of bytes each.
"""

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from pipelines.readers.entry import InputEntry, ListingNotes, ReadOptions, Record, damage
from pipelines.readers.file_kinds import FileKind, is_gzipped, kind_of
from pipelines.readers.places import open_for_reading

#: Members that may lie beside a picture, by extension.
_NEIGHBOURS = ("json", "txt", "cls")
_MOST_NEIGHBOUR_BYTES = 16 << 20

#: Records of a compressed tar that come into one shard: it can be read in order only.
_RECORDS_READ_TOGETHER = 1024

_BLOCK_BYTES = 1 << 20


class _DamagedTarError(Exception):
    """What is wrong with an archive, as part of a sentence."""


class _WatchedHeader(tarfile.TarInfo):
    """A header that remembers how the archive ended: tarfile takes a cut one for the end."""

    @classmethod
    def fromtarfile(cls, tar: Any) -> "_WatchedHeader":  # noqa: ANN401  (tarfile's own signature)
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            tar.spae_ended_by = error
            raise


@dataclass(kw_only=True, slots=True)
class _Sample:
    """Members of one name, as far as they have come."""

    key: str
    pictures: list[tarfile.TarInfo] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)


def tar_entries(file: InputEntry, options: ReadOptions, notes: ListingNotes) -> Iterator[InputEntry]:
    """The pictures of a tar, in order.

    Args:
        file: The tar as listed.
        options: Columns to keep: keys of `json`, and `txt`, `cls`, `__key__`.
        notes: Where to count members that are no pictures.

    Returns:
        An entry a picture; and if the archive is cut off or damaged, one more that says so.

    Raises:
        OSError: If it cannot be reached.
    """
    is_compressed = is_gzipped(file.uri)
    num_pictures = 0
    try:
        for sample in _samples(file, is_compressed, options, notes):
            for picture in sample.pictures:
                slice_ = num_pictures // _RECORDS_READ_TOGETHER
                num_pictures += 1
                yield InputEntry(
                    uri=f"{file.uri}#{_text(picture.name)}",
                    size_bytes=picture.size,
                    etag_or_mtime=file.etag_or_mtime,
                    record=Record(container=file.uri, offset_bytes=picture.offset_data),
                    shard_key=f"{file.uri}#slice={slice_}" if is_compressed else None,
                    kept=options.kept(sample.columns),
                )
    except _DamagedTarError as error:
        yield damage(
            file.uri,
            f"archive {file.uri}: expected a whole tar, got {error} after {num_pictures} pictures. "
            "Copy it again; what could be read of it is in the dataset.",
            stamp=file.etag_or_mtime,
        )


def _samples(file: InputEntry, is_compressed: bool, options: ReadOptions, notes: ListingNotes) -> Iterator[_Sample]:
    """Samples in order; at damage, the one under way as far as it came."""
    sample = _Sample(key="")
    with open_for_reading(file.uri) as raw:
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw) if is_compressed else raw)
        members = _members(stream, None if is_compressed else file.size_bytes)
        while True:
            try:
                member = next(members, None)
            except _DamagedTarError:
                yield sample
                raise
            if member is None:
                break
            key, extension = _split(member.name)
            if key != sample.key:
                yield sample
                sample = _Sample(key=key, columns={"__key__": _text(key)})
            is_hidden = key.rpartition("/")[2] == ""
            is_file = member.isreg() and not member.issparse()
            if is_file and kind_of(member.name) is FileKind.IMAGE and not is_hidden:
                sample.pictures.append(member)
            elif not is_file or extension not in _NEIGHBOURS:
                notes.num_ignored += not member.isdir()
            elif options.keep_columns:
                sample.columns |= _neighbour(file.uri, member, stream, notes)
                notes.add_columns(sample.columns)
    yield sample


def _members(stream: IO[bytes], num_bytes: int | None) -> Iterator[tarfile.TarInfo]:
    """Members of a tar, in memory that does not grow; to the very end of the archive.

    Args:
        stream: The unpacked archive.
        num_bytes: Its size, or None if unknown.

    Raises:
        _DamagedTarError: If the archive is cut off, or is none.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=_WatchedHeader) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile's list of all it has seen
                if num_bytes is not None and member.isreg() and member.offset_data + member.size > num_bytes:
                    raise _DamagedTarError(f"{_text(member.name)} cut off")
                yield member
            # Only a header of zeros is the end that a writer puts there.
            if type(getattr(tar, "spae_ended_by", None)).__name__ != "EOFHeaderError":
                raise _DamagedTarError("no end of the archive")
            while block := stream.read(_BLOCK_BYTES):
                if block.strip(b"\0"):
                    raise _DamagedTarError("more data behind the end of the archive")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _DamagedTarError(f"{error}") from error


def _neighbour(tar: str, member: tarfile.TarInfo, stream: IO[bytes], notes: ListingNotes) -> Mapping[str, Any]:
    """The columns in a member beside a picture; what is not as its extension says is noted and left null."""
    try:
        if member.size > _MOST_NEIGHBOUR_BYTES:
            raise ValueError(f"{member.size} bytes")
        # It follows its header, so the stream only moves on.
        stream.seek(member.offset_data)
        text = stream.read(member.size).decode()
        _, extension = _split(member.name)
        if extension == "txt":
            return {"txt": text.removesuffix("\n")}
        if extension == "cls":
            return {"cls": int(text)}
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"{type(values).__name__} instead of an object")
    except (ValueError, RecursionError) as error:
        notes.problems.append(f"columns of {tar}#{_text(member.name)}: not what its extension says ({error})")
        return {}
    return values


def _split(name: str) -> tuple[str, str]:
    """The sample's key and the member's extension: cut at the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _text(name: str) -> str:
    """A member's name as text; bytes that are no UTF-8 are spelled out."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")

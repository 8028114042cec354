"""A listing of inputs on disk, as it comes: any number of them in the memory of one chunk.

The user's own columns find their types here. Each chunk has the types of its own values; at the end they are
brought together (integers and floats to floats, nothing else is guessed).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import UsageError
from pipelines.readers import InputEntry
from schemas.plan import KEPT, RECORD_TYPE, sample_id_of

#: How scratch files are written.
COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")

_CHUNK_ROWS = 65_536
_FIXED_FIELDS = (
    pa.field("uri", pa.string()),
    pa.field("size_bytes", pa.int64()),
    pa.field("etag_or_mtime", pa.string()),
    pa.field("sample_id", pa.string()),
    pa.field("shard_key", pa.string()),
    pa.field("record", RECORD_TYPE),
)


class ListingSpill:
    """Entries written to a folder chunk by chunk, and read back with one schema.

    Attributes:
        num_rows: Entries written.
        kept_fields: The user's own columns in the order in which they were asked for.
    """

    def __init__(self, entries: Iterable[InputEntry], folder: Path) -> None:
        """Write the whole listing.

        Args:
            entries: Read once, as a stream.
            folder: A folder for scratch files of this object alone.

        Raises:
            UsageError: If a kept column has values of types that do not go together.
        """
        self.num_rows = 0
        self._chunks: list[Path] = []
        types: dict[str, pa.DataType] = {}
        stream = iter(entries)
        while chunk := list(islice(stream, _CHUNK_ROWS)):
            self.num_rows += len(chunk)
            batch = _chunk_batch(chunk)
            for name, values in _kept_arrays(batch).items():
                types[name] = _common_type(name, [types.get(name, pa.null()), values.type])
            path = folder / f"listed-{len(self._chunks):06d}.arrow"
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema, options=COMPRESSED) as writer:
                writer.write_batch(batch)
            self._chunks.append(path)
        self.kept_fields = tuple(pa.field(name, _storable(name, type_)) for name, type_ in types.items())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order: the columns of a plan but `shard`, and `shard_key`."""
        for path in self._chunks:
            with pa.memory_map(str(path)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
                if self.kept_fields:
                    batch = _with_kept(batch, self.kept_fields)
                yield batch


def _chunk_batch(chunk: Sequence[InputEntry]) -> pa.RecordBatch:
    ids = [sample_id_of(entry.uri) for entry in chunk]
    keys = (
        sample_id if entry.shard_key is None else sample_id_of(entry.shard_key)
        for sample_id, entry in zip(ids, chunk, strict=True)
    )
    records = (None if entry.record is None else asdict(entry.record) for entry in chunk)
    values: list[Iterable[Any]] = [
        [entry.uri for entry in chunk],
        [entry.size_bytes for entry in chunk],
        [entry.etag_or_mtime for entry in chunk],
        ids,
        list(keys),
        list(records),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(values, _FIXED_FIELDS, strict=True)]
    names = [field.name for field in _FIXED_FIELDS]
    kept_names = list(dict.fromkeys(name for entry in chunk for name in entry.kept))
    if kept_names:
        kept = [_typed(name, [entry.kept.get(name) for entry in chunk]) for name in kept_names]
        arrays.append(pa.StructArray.from_arrays(kept, names=kept_names))
        names.append(KEPT)
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _typed(name: str, values: list[Any]) -> pa.Array:
    """An array of plain values and Arrow scalars, of the type that fits all of them."""
    plain = [None if isinstance(value, pa.Scalar) else value for value in values]
    try:
        type_ = _common_type(name, [pa.array(plain).type, *{v.type for v in values if isinstance(v, pa.Scalar)}])
        return pa.array([v.as_py() if isinstance(v, pa.Scalar) else v for v in values], type_)
    except (pa.ArrowException, OverflowError) as error:
        raise UsageError(
            f"kept column {name!r}: expected values of one type, got: {error}. Make them equal in the input."
        ) from error


def _common_type(name: str, types: Iterable[pa.DataType]) -> pa.DataType:
    plain = (type_.value_type if pa.types.is_dictionary(type_) else type_ for type_ in types)
    schemas = [pa.schema([(name, type_)]) for type_ in plain]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException as error:
        got = " and ".join(sorted({str(schema.field(0).type) for schema in schemas} - {"null"}))
        raise UsageError(
            f"kept column {name!r}: expected values of one type, got {got}. Make them equal in the input."
        ) from error


def _storable(name: str, type_: pa.DataType) -> pa.DataType:
    """A column without any value is one of strings; a struct needs a field to be stored."""
    if pa.types.is_null(type_):
        return pa.string()
    if pa.types.is_struct(type_) and type_.num_fields == 0:
        raise UsageError(f"kept column {name!r}: expected values, got empty objects only. Leave it out.")
    return type_


def _kept_arrays(batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
    if KEPT not in batch.schema.names:
        return {}
    kept = batch[KEPT]
    return {field.name: kept.field(index) for index, field in enumerate(kept.type)}


def _with_kept(batch: pa.RecordBatch, fields: Sequence[pa.Field]) -> pa.RecordBatch:
    """The batch with `kept` of exactly these fields; what its chunk did not have is null."""
    there = _kept_arrays(batch)
    arrays = [
        there[field.name].cast(field.type) if field.name in there else pa.nulls(batch.num_rows, field.type)
        for field in fields
    ]
    columns = [batch[field.name] for field in _FIXED_FIELDS]
    return pa.RecordBatch.from_arrays(
        [*columns, pa.StructArray.from_arrays(arrays, fields=list(fields))],
        names=[*(field.name for field in _FIXED_FIELDS), KEPT],
    )

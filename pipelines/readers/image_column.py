"""Which column of a table holds the pictures, or says where they are."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from pipelines.errors import UsageError

#: Names of columns that say where a picture is, best first.
_URI_COLUMNS = (
    *("uri", "image_uri", "url", "image_url", "path", "image_path", "file_path"),
    *("file_name", "filename", "file", "image"),
)

#: The one name that decides between several columns of bytes.
_USUAL_NAME = "image"


class NoImageColumnError(UsageError):
    """A table has no column of pictures, or several and no way to choose."""


def uri_column(names: Iterable[str], *, wanted: str | None, where: str) -> str:
    """The column of a list that says where each picture is.

    Args:
        names: Columns there are.
        wanted: The column the user named, or None.
        where: Path or url of the list, for messages.

    Raises:
        NoImageColumnError: If there is none, or the list has not the one that was named.
    """
    there = list(names)
    for name in (wanted,) if wanted else _URI_COLUMNS:
        if name in there:
            return name
    expected = f"a column {wanted!r}" if wanted else f"a column named one of {', '.join(_URI_COLUMNS)}"
    raise NoImageColumnError(
        f"list {where}: expected {expected}, got {_shown(there)}. Name the column with --image-column."
    )


def bytes_column(schema: pa.Schema, *, wanted: str | None, where: str) -> str | None:
    """The leaf column of a Parquet file that holds encoded pictures.

    Args:
        schema: The file's columns.
        wanted: The column the user named, or None.
        where: Path or url of the file, for messages.

    Returns:
        `image` for a column of bytes, `image.bytes` for a struct with a field of that name (as Hugging Face
        datasets have it); None if there is none but perhaps one of uris.

    Raises:
        NoImageColumnError: If there are several and none is named `image`.
    """
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field)) is not None}
    if wanted is not None:
        return leaves.get(wanted)
    if len(leaves) > 1 and _USUAL_NAME not in leaves:
        raise NoImageColumnError(
            f"table {where}: expected one column of encoded pictures, got {_shown(list(leaves))}. "
            "Name the right one with --image-column."
        )
    return leaves.get(_USUAL_NAME) or next(iter(leaves.values()), None)


def _leaf(field: pa.Field) -> str | None:
    if _is_bytes(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        if index >= 0 and _is_bytes(field.type.field(index).type):
            return f"{field.name}.bytes"
    return None


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(map(str, names[:20]))
    return f"{shown}, …" if len(names) > 20 else shown or "none"

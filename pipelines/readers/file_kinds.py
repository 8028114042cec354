"""What a file is, by its name: a picture, a container of pictures, a list of them, or none of our business."""

from enum import Enum

#: Extensions a folder or a glob takes as pictures, compared without regard to case.
IMAGE_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "heic", "heif", "jfif", "jp2"),
        *("jpe", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp"),
    )
)

#: Lists that a folder in the Hugging Face layout keeps about its own pictures.
METADATA_LISTS = ("metadata.jsonl", "metadata.csv")


class FileKind(Enum):
    """What is made of a file."""

    IMAGE = "a picture"
    TAR = "a tar"
    PARQUET = "a Parquet file"
    LIST = "a list"
    UNSUPPORTED = "a container of another kind"
    OTHER = "something else"


#: Longest first where one ends another.
_ENDINGS = {
    FileKind.TAR: (".tar", ".tar.gz", ".tgz"),
    FileKind.PARQUET: (".parquet",),
    FileKind.LIST: (".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".csv.gz", ".tsv"),
    FileKind.UNSUPPORTED: (".zip", ".7z", ".tar.bz2", ".tar.xz", ".tar.zst", ".mp4", ".mov", ".avi", ".mkv", ".webm"),
    FileKind.IMAGE: tuple(sorted(IMAGE_EXTENSIONS)),
}


def kind_of(name: str) -> FileKind:
    """The kind of a file of this name, path or url."""
    lower = name.lower()
    return next((kind for kind, endings in _ENDINGS.items() if lower.endswith(endings)), FileKind.OTHER)


def is_gzipped(name: str) -> bool:
    """Whether the name says that the content is compressed with gzip."""
    return name.lower().endswith((".gz", ".tgz"))

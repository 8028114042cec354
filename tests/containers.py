"""The same pictures in every kind of container a team may have them in, with captions and labels."""

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

#: Name of a picture -> its encoded bytes.
Pictures = Mapping[str, bytes]


def pictures_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def caption(number: int) -> str:
    return f"picture no. {number}"


def tar_bytes(pictures: Pictures) -> bytes:
    """A WebDataset tar: each picture with its json, txt and cls."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for number, (name, content) in enumerate(pictures.items()):
            stem = name.partition(".")[0]
            for member, data in (
                (name, content),
                (f"{stem}.json", json.dumps({"caption": caption(number), "label": number}).encode()),
                (f"{stem}.txt", caption(number).encode()),
                (f"{stem}.cls", str(number).encode()),
            ):
                header = tarfile.TarInfo(member)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return sink.getvalue()


def _parquet(columns: Mapping[str, pa.Array | list[object]], **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), sink, **options)
    return sink.getvalue()


def bytes_parquet(pictures: Pictures, *, row_group_size: int = 7, **options: object) -> bytes:
    captions = [caption(number) for number in range(len(pictures))]
    labels = pa.array(range(len(pictures)), pa.int16())
    content = pa.array(pictures.values(), pa.binary())
    return _parquet({"image": content, "caption": captions, "label": labels}, row_group_size=row_group_size, **options)


def hugging_face_parquet(pictures: Pictures, *, row_group_size: int = 7) -> bytes:
    """As `datasets` writes them: a struct of bytes and path."""
    images = pa.array([{"bytes": content, "path": name} for name, content in pictures.items()])
    labels = pa.array(range(len(pictures)), pa.int64())
    return _parquet({"image": images, "label": labels}, row_group_size=row_group_size)


def uri_parquet(names: list[str]) -> bytes:
    return _parquet({"url": pa.array(names), "label": pa.array(range(len(names)), pa.int64())})


def jsonl(names: list[str], column: str = "path") -> bytes:
    rows = ({column: name, "caption": caption(n), "label": n, "score": n / 2} for n, name in enumerate(names))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_list(names: list[str], column: str = "file_name") -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow([column, "caption", "label"])
    writer.writerows([name, f'{caption(n)}, "quoted"', n] for n, name in enumerate(names))
    return sink.getvalue().encode()


def write_every_kind(folder: Path, write: Callable[[str, bytes], None]) -> dict[str, str]:
    """Write the pictures of a folder in every kind of container.

    Args:
        folder: Pictures of this machine.
        write: Stores bytes under a relative path of the place wanted.

    Returns:
        Kind of reader -> INPUT relative to that place.
    """
    pictures = pictures_of(folder)
    names = list(pictures)
    half = len(names) // 2
    first, second = ({name: pictures[name] for name in part} for part in (names[:half], names[half:]))
    files = {
        **{f"photos/{name}": content for name, content in pictures.items()},
        "wds/000.tar": tar_bytes(first),
        "wds/001.tar": tar_bytes(second),
        "packed/all.tar.gz": gzip.compress(tar_bytes(pictures), mtime=0),
        "tables/bytes.parquet": bytes_parquet(pictures),
        "tables/uris.parquet": uri_parquet([f"../photos/{name}" for name in names]),
        "hub/data/train-00000-of-00002.parquet": hugging_face_parquet(first),
        "hub/data/train-00001-of-00002.parquet": hugging_face_parquet(second),
        "hub/README.md": b"a dataset",
        **{f"imagefolder/train/{name}": content for name, content in pictures.items()},
        "imagefolder/train/metadata.jsonl": jsonl(names, "file_name"),
        "lists/photos.jsonl": jsonl([f"../photos/{name}" for name in names]),
        "photos.csv": csv_list([f"photos/{name}" for name in names]),
    }
    for path, content in files.items():
        write(path, content)
    return {
        "folder": "photos",
        "glob": "photos/*.png",
        "tars in a folder": "wds",
        "glob of tars": "wds/*.tar",
        "compressed tar": "packed/all.tar.gz",
        "Parquet with bytes": "tables/bytes.parquet",
        "Parquet with uris": "tables/uris.parquet",
        "Hugging Face Parquet": "hub",
        "Hugging Face image folder": "imagefolder",
        "JSONL": "lists/photos.jsonl",
        "CSV": "photos.csv",
    }


def writer_below(root: Path) -> Callable[[str, bytes], None]:
    def write(path: str, content: bytes) -> None:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    return write

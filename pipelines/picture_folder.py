"""A folder of decoded pictures: one PNG a sample, whole or not at all, and an index of which is which.

settings.json   index.parquet (sample_id, uri, file_name)   <stem>-<sample_id's first digits>.png
"""

import io
import json
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from types import TracebackType

import pyarrow as pa
from PIL import Image

from pipelines.errors import UsageError
from pipelines.parquet_files import to_parquet
from pipelines.runs.run_config import differences
from pipelines.storage import Storage

SETTINGS = "settings.json"
INDEX = "index.parquet"

INDEX_SCHEMA = pa.schema([("sample_id", pa.string()), ("uri", pa.string()), ("file_name", pa.string())])

#: 48 bits: among a million pictures of one stem two share them with a chance of 1 in 500.
_ID_DIGITS = 12
_LONGEST_STEM_BYTES = 120
_NUM_THREADS = 4
_MOST_AHEAD = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSettings:
    """What the pictures of a folder have in common.

    Attributes:
        model_sha256: Weights that decode.
        codebook_sha256: Codebook of the tokens.
        num_layers: Layers decoded from.
        image_size_px: Side of the pictures.
    """

    model_sha256: str
    codebook_sha256: str
    num_layers: int
    image_size_px: int


@dataclass(kw_only=True)
class PictureFolder:
    """Writes pictures in threads; a context manager that ends them and writes the index.

    Attributes:
        storage: Where the folder is.
        image_size_px: Side of the pictures.
        there: File names that exist.
        num_written: Pictures written so far.
        num_kept: Rows whose picture was there before.
    """

    storage: Storage
    image_size_px: int
    there: set[str]
    num_written: int = 0
    num_kept: int = 0
    _index: list[pa.RecordBatch] = field(default_factory=list)
    _ahead: "deque[Future[None]]" = field(default_factory=deque)
    _pool: ThreadPoolExecutor | None = None

    @classmethod
    def open(cls, storage: Storage, settings: PictureSettings) -> "PictureFolder":
        """Make the folder, or go on with one of equal settings.

        Raises:
            UsageError: If the pictures there were made otherwise; the message has the differences.
        """
        text = json.dumps(asdict(settings), indent=2) + "\n"
        if not storage.exists(SETTINGS):
            storage.prepare()
            storage.create(SETTINGS, text.encode())
        stored = json.loads(storage.read_bytes(SETTINGS))
        lines = differences(stored, asdict(settings))
        if lines:
            raise UsageError(
                f"pictures {storage.url()}: expected the settings they were made with, got others:\n  "
                + "\n  ".join(lines)
                + "\nUse a new --out."
            )
        there = set(storage.names())
        return cls(storage=storage, image_size_px=settings.image_size_px, there=there)

    def __enter__(self) -> "PictureFolder":
        """Start the threads."""
        self._pool = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="png")
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish what is under way; write the index if all went well."""
        assert self._pool is not None
        try:
            while self._ahead and exception is None:
                self._ahead.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if exception is None:
            index = pa.Table.from_batches(self._index, INDEX_SCHEMA).sort_by("file_name")
            self.storage.replace(INDEX, to_parquet(index))
            self.storage.clean()

    def without_kept(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that have no picture yet; the others go straight to the index."""
        names = [file_name_of(row["uri"], row["sample_id"]) for row in _ids(batch)]
        is_missing = [name not in self.there for name in names]
        kept = batch.filter(pa.array([not missing for missing in is_missing]))
        self.num_kept += kept.num_rows
        self._add_to_index(kept)
        return batch.filter(pa.array(is_missing))

    def add(self, batch: pa.RecordBatch) -> None:
        """Write the pictures of a batch.

        Args:
            batch: `sample_id`, `uri`, `pixels` (S·S·3 bytes).
        """
        assert self._pool is not None
        for row, pixels in zip(_ids(batch), batch["pixels"].to_pylist(), strict=True):
            name = file_name_of(row["uri"], row["sample_id"])
            self._ahead.append(self._pool.submit(self._write, name, pixels))
            while len(self._ahead) > _MOST_AHEAD:
                self._ahead.popleft().result()
        self.num_written += batch.num_rows
        self._add_to_index(batch)

    def _write(self, name: str, pixels: bytes) -> None:
        side = self.image_size_px
        sink = io.BytesIO()
        Image.frombytes("RGB", (side, side), pixels).save(sink, format="PNG")
        self.storage.replace(name, sink.getvalue())

    def _add_to_index(self, batch: pa.RecordBatch) -> None:
        names = [file_name_of(row["uri"], row["sample_id"]) for row in _ids(batch)]
        columns = [batch["sample_id"], batch["uri"], pa.array(names, pa.string())]
        self._index.append(pa.RecordBatch.from_arrays(columns, schema=INDEX_SCHEMA))


def file_name_of(uri: str, sample_id: str) -> str:
    """Name of a sample's picture: the source's stem, safe for any file system, and digits of the id."""
    stem = re.sub(r"[^\w.-]+", "_", PurePosixPath(uri).stem).strip("._")
    stem = stem.encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore")
    return f"{stem or 'picture'}-{sample_id[:_ID_DIGITS]}.png"


def _ids(batch: pa.RecordBatch) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = batch.select(["sample_id", "uri"]).to_pylist()
    return rows

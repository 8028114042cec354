"""Open a token dataset for reading: a run, a folder or a glob of its Parquet files, or one file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fsspec
import pyarrow as pa

from pipelines.errors import BadDataError, UsageError
from pipelines.parquet_files import open_parquet
from pipelines.runs.run_layout import DATA_FOLDER
from schemas.tokens import TokensMetadata, num_token_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenDataset:
    """Token files that one model made.

    Attributes:
        filesystem: Driver the files are read with.
        paths: The files, in order.
        metadata: What the first file's footer says; model and codebook are the same in all.
        num_rows: Pictures in all files.
        num_layers: Layers written.
    """

    filesystem: fsspec.AbstractFileSystem
    paths: tuple[str, ...]
    metadata: TokensMetadata
    num_rows: int
    num_layers: int

    def batches(self, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        """Rows of all files in order.

        Args:
            columns: Names of the columns to read.
            batch_size: Most rows of one batch.
        """
        for path in self.paths:
            with self.filesystem.open(path, "rb") as file:
                yield from open_parquet(file).iter_batches(
                    batch_size=batch_size, columns=list(columns), use_threads=False
                )


def open_token_dataset(location: str) -> TokenDataset:
    """Find the files and read their footers.

    Args:
        location: A run's folder, a folder of token files, a glob, or one file; local or any fsspec url.

    Raises:
        UsageError: If there are no token files.
        SchemaError: If one is no token file of this version.
        BadDataError: If they were made by different models or codebooks.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"tokens {location}: expected a path or a url fsspec can open, got: {error}. Install the driver it names."
        ) from error
    paths = _token_files(filesystem, path)
    if not paths:
        raise UsageError(
            f"tokens {location}: expected a run or Parquet files of one, got no such file. Check the path."
        )
    first: TokensMetadata | None = None
    num_rows, num_layers = 0, 0
    for file_path in paths:
        with filesystem.open(file_path, "rb") as file:
            try:
                parquet = open_parquet(file)
            except pa.ArrowException as error:
                raise BadDataError(
                    f"tokens {file_path}: expected a Parquet file, got: {error}. Copy it again."
                ) from error
            metadata = TokensMetadata.from_footer(parquet.metadata.metadata, where=file_path)
            num_rows += parquet.metadata.num_rows
            if first is None:
                first, num_layers = metadata, num_token_layers(parquet.schema_arrow)
        for name in ("codebook_sha256", "model_sha256", "layer_grids"):
            expected, got = getattr(first, name), getattr(metadata, name)
            if expected != got:
                raise BadDataError(
                    f"tokens {file_path}: expected {name} {expected} of the files before it, got {got}. "
                    "Give the files of one run."
                )
    assert first is not None  # paths is not empty
    return TokenDataset(
        filesystem=filesystem, paths=tuple(paths), metadata=first, num_rows=num_rows, num_layers=num_layers
    )


def _token_files(filesystem: fsspec.AbstractFileSystem, path: str) -> list[str]:
    if filesystem.isfile(path):
        return [path]
    if filesystem.isdir(path):
        folder = f"{path.rstrip('/')}/{DATA_FOLDER}"
        folder = folder if filesystem.isdir(folder) else path.rstrip("/")
        return sorted(
            info["name"]
            for info in filesystem.ls(folder, detail=True)
            if info["type"] == "file" and info["name"].endswith(".parquet")
        )
    return sorted(filesystem.glob(path)) if any(character in path for character in "*?[") else []

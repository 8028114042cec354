"""Choose the storage of a run by its url."""

from pathlib import Path

import fsspec

from pipelines.errors import UsageError
from pipelines.storage.interface import Storage
from pipelines.storage.local_disk import LocalStorage
from pipelines.storage.object_store import ObjectStorage

#: Protocols whose `pipe_file(mode="create")` is one atomic request; fsspec's generic one looks, then writes.
_PROTOCOLS_WITH_PRECONDITION = frozenset({"gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "memory"})


def open_storage(url: str | Path) -> Storage:
    """Choose the storage of a run by its url.

    Args:
        url: A local path, `file://…`, or any fsspec url of a store that can create a file only if it is
            absent.

    Raises:
        UsageError: If the store cannot do that, or its driver is not installed.
    """
    text = str(url)
    protocol, separator, rest = text.partition("://")
    if not separator:
        return LocalStorage(Path(text).expanduser().absolute())
    if protocol in ("file", "local"):
        return LocalStorage(Path(rest).absolute())
    if protocol not in _PROTOCOLS_WITH_PRECONDITION:
        raise UsageError(
            f"output {text}: expected a store that can create a file only if it is absent,"
            f" got {protocol}://, where two writers could overwrite each other."
            " Write to a local folder, gs:// or s3://, then copy."
        )
    try:
        filesystem, root = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"output {text}: expected a url fsspec can open, got: {error}. Install the driver it names."
        ) from error
    return ObjectStorage(filesystem, root)

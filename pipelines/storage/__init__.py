"""Where a run is written: a local folder or an object store, with the one operation commits rest on.

`Storage.create` makes a file *only if it is absent*, whole or not at all, however many processes try: a hard
link of a finished temporary file on a local disk, an upload with a precondition on an object store. First
writer wins. Paths are relative to the run's root and use `/`.
"""

from pipelines.storage.failures import clear_error_if_full, driver_errors_as_os_error
from pipelines.storage.interface import Storage
from pipelines.storage.local_disk import TEMPORARY_FOLDER, LocalStorage
from pipelines.storage.object_store import ObjectStorage
from pipelines.storage.opening import open_storage

__all__ = [
    "TEMPORARY_FOLDER",
    "LocalStorage",
    "ObjectStorage",
    "Storage",
    "clear_error_if_full",
    "driver_errors_as_os_error",
    "open_storage",
]

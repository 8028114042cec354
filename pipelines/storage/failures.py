"""What disks and drivers of object stores say when something fails, in one language."""

import contextlib
import errno
from collections.abc import Iterator

from pipelines.errors import StorageFullError, UsageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def clear_error_if_full(what: str) -> Iterator[None]:
    """Turn a full disk into one clear error.

    Args:
        what: What is being written, for the message.

    Raises:
        StorageFullError: If the block fails for want of room, quota or file size.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFullError(
            f"{what}: expected room for the file, got: {error.strerror or error}. "
            "Free some space (or raise the quota), then run the same command again."
        ) from error


@contextlib.contextmanager
def driver_errors_as_os_error() -> Iterator[None]:
    """Turn what drivers of object stores raise of their own (HTTP errors, time-outs) into OSError.

    Raises:
        OSError: One of Python's own, which unlike a driver's survives the way to another process; with the driver's
            message, and its error as the cause.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and type(error).__module__ == "builtins":
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error

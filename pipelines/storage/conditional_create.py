"""Create an object only if it is absent, and tell who was first, in the words of each object store.

GCS takes `ifGenerationMatch=0` and answers 412 to all but the first. S3 takes `If-None-Match: *` and answers 412,
or 409 while another upload of the same key is under way; stores that speak S3 give these answers in words of their
own.
"""

import random
import time
from typing import Any

import fsspec

#: Answers that mean: it is there.
_TAKEN = frozenset({"PreconditionFailed", "412"})

#: Answers that mean: somebody is making it right now, ask again.
_CONTESTED = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})

_NUM_TRIES = 6
_FIRST_PAUSE_SECONDS = 0.1


def create_object(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Upload with the precondition that the object does not exist.

    Args:
        filesystem: Driver of a store whose `pipe_file(mode="create")` is one conditional request.
        path: Path of the object, without protocol.
        data: Its content.

    Returns:
        True if this call made it, False if it was there before or another writer was faster.

    Raises:
        Exception: Whatever the driver raises when the upload fails for another reason.
    """
    for tries_left in reversed(range(_NUM_TRIES)):
        try:
            filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            answer = _answer(error)
            if answer in _TAKEN:
                return False
            if answer not in _CONTESTED or not tries_left:
                raise
            # Jitter, so that two writers do not meet again at once.
            time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (_NUM_TRIES - 1 - tries_left) * (0.5 + random.random()))
        else:
            return True
    raise AssertionError("unreachable: the last try returns or raises")


def _answer(error: BaseException) -> str | None:
    """The code of the store's answer, as botocore keeps it in the error or in its cause."""
    for candidate in (error, error.__cause__):
        response: Any = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code"))
    return None

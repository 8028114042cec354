"""Replace an object only if it is still the version that was read: what rebuilding a committed file rests on.

fsspec has no such call, so it is made with each driver's own: `ifGenerationMatch` on GCS, `If-Match` on S3. fsspec's
memory filesystem, which is one process by nature, is compared under a lock.
"""

import hashlib
import json
import threading

import fsspec

from pipelines.errors import UsageError

_MEMORY_LOCK = threading.Lock()

#: The precondition does not hold; or another upload is under way, which comes to the same: look again.
_S3_REFUSALS = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})

#: Long and odd enough to be in no Parquet file.
_BOUNDARY = "spae-6f1d0b9c57e84f3fa2c4-part"
_PARTS = (
    f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%s\r\n"
    f"--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n--{_BOUNDARY}--\r\n"
).encode()


def object_version(filesystem: fsspec.AbstractFileSystem, path: str) -> str:
    """The version of an object, as its store counts it.

    Raises:
        FileNotFoundError: If there is no such object.
        UsageError: If the store's versions are not known here.
    """
    protocol = _protocol(filesystem)
    if protocol == "memory":
        return hashlib.sha256(filesystem.cat_file(path)).hexdigest()
    filesystem.invalidate_cache(path.rpartition("/")[0])
    info = filesystem.info(path, refresh=True) if protocol == "s3" else filesystem.info(path)
    return str(info["generation" if protocol == "gs" else "ETag"])


def upload_if_version(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes, version: str) -> bool:
    """Replace an object if its version is still `version`.

    Returns:
        True if this call replaced it, False if somebody else had changed it.
    """
    protocol = _protocol(filesystem)
    bucket, _, key = path.partition("/")
    try:
        if protocol == "gs":
            metadata = json.dumps({"name": key}).encode()
            filesystem.call(
                "POST",
                f"{filesystem._location}/upload/storage/v1/b/{bucket}/o",
                uploadType="multipart",
                ifGenerationMatch=version,
                headers={"Content-Type": f'multipart/related; boundary="{_BOUNDARY}"'},
                data=_PARTS % (metadata, data),
            )
        elif protocol == "s3":
            filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=version)
        else:
            with _MEMORY_LOCK:
                if object_version(filesystem, path) != version:
                    return False
                filesystem.pipe_file(path, data)
    except FileExistsError:  # gcsfs for HTTP 412: the precondition does not hold.
        return False
    except OSError as error:
        if _s3_code(error) in _S3_REFUSALS:
            return False
        raise
    filesystem.invalidate_cache(path.rpartition("/")[0])
    return True


def _s3_code(error: OSError) -> str:
    """The code of S3's own answer behind an error of s3fs, or nothing."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _protocol(filesystem: fsspec.AbstractFileSystem) -> str:
    names = filesystem.protocol
    names = (names,) if isinstance(names, str) else tuple(names)
    for protocol in ("gs", "s3", "memory"):
        if protocol in names:
            return protocol
    raise UsageError(
        f"store {'/'.join(names)}: expected one whose files can be replaced under a precondition "
        "(local, gs://, s3://), got another. Tokenize the changed pictures into a new --out."
    )

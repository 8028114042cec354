from functools import partial

import fsspec
import pytest
from runs import winners_of_a_race

from pipelines.storage import open_storage
from pipelines.storage.conditional_create import create_object

pytestmark = pytest.mark.engine


def test_the_first_writer_wins_and_the_second_is_told(bucket):
    storage = open_storage(f"{bucket}/run")
    storage.prepare()
    assert storage.create("data/part-00000.parquet", b"first") is True
    assert storage.create("data/part-00000.parquet", b"second") is False
    assert storage.read_bytes("data/part-00000.parquet") == b"first"


def test_of_many_writers_at_once_exactly_one_wins_and_its_bytes_are_whole(bucket):
    def write(path: str, number: int) -> bool:
        # Each writer has a storage of its own, as if in a process of its own: no cache is shared.
        return open_storage(f"{bucket}/run").create(path, bytes([number]) * 100_000)

    for race in range(5):
        path = f"data/part-{race}"
        winners = winners_of_a_race(6, partial(write, path))
        assert len(winners) == 1
        assert open_storage(f"{bucket}/run").read_bytes(path) == bytes(winners) * 100_000


def test_a_writer_that_never_listed_the_bucket_does_not_overwrite(bucket):
    open_storage(f"{bucket}/run").create("config.json", b"theirs")
    fsspec.filesystem(bucket.partition("://")[0]).invalidate_cache()
    assert open_storage(f"{bucket}/run").create("config.json", b"ours") is False


def test_replace_makes_and_overwrites(bucket):
    storage = open_storage(f"{bucket}/run")
    storage.replace("manifest.json", b"old")
    storage.replace("manifest.json", b"new")
    assert storage.read_bytes("manifest.json") == b"new"


def test_names_are_the_files_directly_in_a_folder_and_never_stale(bucket):
    storage = open_storage(f"{bucket}/run")
    assert storage.names("data") == []
    for path in ("data/b", "data/a", "config.json"):
        storage.create(path, b"x")
    assert storage.names("data") == ["a", "b"]
    open_storage(f"{bucket}/run").create("data/c", b"x")
    assert storage.names("data") == ["a", "b", "c"]
    assert storage.names() == ["config.json"]
    assert storage.exists("data/a")
    assert not storage.exists("data")


def test_a_bucket_that_does_not_exist_is_an_error_and_no_lost_race(bucket):
    filesystem, path = fsspec.core.url_to_fs(f"{bucket}-gone/run/config.json")
    with pytest.raises(OSError, match=r"(?s).+"):
        create_object(filesystem, path, b"x")

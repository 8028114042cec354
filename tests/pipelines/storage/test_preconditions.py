"""Replace-if-unchanged on the emulators of the two stores, spoken to as the real ones are."""

import pytest
from runs import winners_of_a_race

from pipelines.health import bucket_check
from pipelines.storage import open_storage

pytestmark = pytest.mark.engine


@pytest.fixture
def storage(bucket):
    return open_storage(f"{bucket}/run")


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
    winners = winners_of_a_race(4, lambda number: storage.replace_version("data/part", bytes([number]) * 1000, version))
    assert len(winners) == 1
    assert storage.read_bytes("data/part") == bytes(winners) * 1000


def test_the_doctor_finds_the_bucket_fit(storage, monkeypatch):
    monkeypatch.setattr("pipelines.health.open_storage", lambda url: storage)
    check = bucket_check(storage.url())
    assert check.status == "ok", check.found
    assert storage.names() == []

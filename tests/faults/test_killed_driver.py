"""`kill -9` of the process that drives a run, at each moment of a commit, and two of them at once.

The next driver makes up for what is missing, and nothing is there twice: for every engine, and in every kind of place.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from deadly_driver import MOMENTS, NUM_SHARDS, drive

from pipelines.storage import TEMPORARY_FOLDER, LocalStorage, Storage, open_storage

pytestmark = pytest.mark.engine

TESTS = Path(__file__).resolve().parents[1]
ENGINES, PLACES = ("local", "ray", "beam"), ("disk", "gs", "s3")

#: All engines commit by the same lines, so one of them meets every moment in every place, each of the others every
#: moment and every place.
CASES = [
    *(("local", place, moment) for place in PLACES for moment in MOMENTS),
    *((engine, "disk", moment) for engine in ENGINES[1:] for moment in MOMENTS),
    *((engine, place, "mid write") for engine in ENGINES[1:] for place in PLACES[1:]),
]


def parts(storage: Storage) -> dict[str, bytes]:
    return {
        f"{folder}/{name}": storage.read_bytes(f"{folder}/{name}")
        for folder in ("data", "quarantine")
        for name in storage.names(folder)
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    storage = LocalStorage(folder / "run")
    assert drive("local", storage, folder / "plan").failures == {}
    return parts(storage)


@pytest.fixture
def url(place, tmp_path, request):
    """Where the run goes."""
    if place == "disk":
        return str(tmp_path / "run")
    bucket = request.getfixturevalue({"gs": "gcs_bucket", "s3": "s3_bucket"}[place])
    return f"{bucket}/run"


@pytest.fixture
def start(engine, url, tmp_path, request):
    """Starts a driver as a process of its own."""
    address = request.getfixturevalue("ray_cluster") if engine == "ray" else "-"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))}

    def start(moment: str, number: int = 0) -> "subprocess.Popen[str]":
        program = str(TESTS / "faults" / "deadly_driver.py")
        command = [sys.executable, program, engine, url, str(tmp_path / f"plan-{number}"), moment, address]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize(("engine", "place", "moment"), CASES)
def test_what_it_leaves_is_whole_and_the_next_one_does_the_rest(start, engine, url, unbroken, tmp_path, moment):
    killed = start(moment)
    _, err = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, err
    storage = open_storage(url)
    left = {name: data for name, data in parts(storage).items() if name.startswith("data/")}
    # It dies of its second file; Ray and Beam have threads that commit others meanwhile.
    least, most = {"after write": (1, NUM_SHARDS), "before manifest": (NUM_SHARDS, NUM_SHARDS)}.get(
        moment, (0, NUM_SHARDS - 1)
    )
    assert least <= len(left) <= most
    assert left.items() <= unbroken.items()
    assert drive(engine, storage, tmp_path / "plan").failures == {}
    assert parts(storage) == unbroken
    storage.clean()
    assert storage.names(TEMPORARY_FOLDER) == []


@pytest.mark.parametrize(("engine", "place"), [*(("local", place) for place in PLACES), ("ray", "gs"), ("beam", "s3")])
def test_two_at_once_make_one_run(start, url, unbroken):
    drivers = [start("never", number) for number in range(2)]
    errors = [driver.communicate()[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], errors
    assert parts(open_storage(url)) == unbroken

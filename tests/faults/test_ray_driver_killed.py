"""`kill -9` of the process that drives a run on Ray, at each moment of a commit: the next one makes up for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crashing_stages import PassOn
from ray_driver import NUM_INPUTS, NUM_SHARDS
from ray_runs import claim_made_up, made_up_run, run_on_ray
from runs import files_below

from pipelines.storage import LocalStorage

pytestmark = pytest.mark.engine

TESTS = Path(__file__).resolve().parents[1]
SIZE = {"num_inputs": NUM_INPUTS, "num_shards": NUM_SHARDS}


@pytest.fixture(scope="module")
def unbroken(ray_cluster, tmp_path_factory):
    _, storage = made_up_run(tmp_path_factory.mktemp("unbroken"), feed=PassOn(rejects="/3.jpg"), **SIZE)
    return files_below(storage.root)


@pytest.mark.parametrize(
    ("moment", "num_committed"),
    [("before write", range(4)), ("mid write", range(4)), ("after write", range(1, 5)), ("before manifest", [4])],
)
def test_a_killed_driver_leaves_whole_files_and_the_next_one_does_the_rest(
    ray_cluster, unbroken, tmp_path, moment, num_committed
):
    command = [sys.executable, str(TESTS / "faults" / "ray_driver.py"), ray_cluster, str(tmp_path), moment]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    storage = LocalStorage(tmp_path / "run")
    left = files_below(storage.root)
    assert len(storage.names("data")) in num_committed
    assert all(left[name] == unbroken[name] for name in left if name.startswith("data/"))
    claimed = claim_made_up(storage, tmp_path / "plan", **SIZE)
    run_on_ray(claimed, feed=PassOn(rejects="/3.jpg"))
    storage.clean()
    again = files_below(storage.root)
    assert {name: data for name, data in again.items() if not name.startswith(".tmp/")} == unbroken

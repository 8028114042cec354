"""A machine of a Ray cluster that is gone in the middle of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ray_lost_node import NUM_INPUTS, NUM_SHARDS

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.engine
@pytest.mark.slow
def test_a_lost_node_costs_no_row_and_doubles_none(tmp_path):
    command = [sys.executable, str(TESTS / "faults" / "ray_lost_node.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    files = sorted((tmp_path / "run" / "data").iterdir())
    assert len(files) == NUM_SHARDS
    uris = [uri for file in files for uri in pq.read_table(file)["uri"].to_pylist()]
    assert sorted(uris) == sorted(f"/photos/{number}.jpg" for number in range(NUM_INPUTS) if number != 3)

"""What is sent to the workers of a cluster, asked of a worker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.engines.ray_data.session import shipped_code

ROOT = Path(__file__).resolve().parents[2]

# A driver of its own, since the code is sent when it connects. On one machine a worker finds the driver's folders
# too, so it is asked what was sent and is on its path, not where it took the packages from.
PROGRAM = """
import sys
from pathlib import Path
from pipelines.engines.ray_data import RayOptions
from pipelines.engines.ray_data.session import ray_session

def where():
    import sys
    folders = [Path(path) for path in sys.path if "runtime_resources" in path]
    return [str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*.*")]

with ray_session(RayOptions(address=sys.argv[1])):
    import ray
    sent = ray.get(ray.remote(where).remote())
assert {"pipelines/runs/plan.py", "spae_core/tokenizer.py", "schemas/tokens.py"} <= set(sent), sent
assert not [name for name in sent if name.endswith((".safetensors", ".pt", ".pyc"))], sent
"""


@pytest.mark.engine
@pytest.mark.skipif(" " in sys.executable, reason="Ray cannot start workers with sent code where the path has a blank")
def test_the_workers_of_a_cluster_run_the_code_that_was_sent_to_them(ray_cluster):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, ray_cluster]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_only_the_three_packages_that_workers_run_are_sent():
    assert [Path(path).name for path in shipped_code()["py_modules"]] == ["spae_core", "schemas", "pipelines"]
    assert all((Path(path) / "__init__.py").is_file() for path in shipped_code()["py_modules"])

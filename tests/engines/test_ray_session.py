"""What is sent to the workers of a cluster, asked of a worker; and signals that come while Ray starts."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs.signals import Terminated, signals_as_exceptions
from pipelines.engines.ray_data.options import RayOptions
from pipelines.engines.ray_data.session import ray_session, shipped_code

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


@pytest.fixture
def ray_in_name(monkeypatch):
    """Ray replaced: what would be started and ended is listed, and `start` can be set to something else."""
    import ray

    done = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: done.append("start"))
    monkeypatch.setattr(ray, "nodes", lambda: done.append("ask") or [])
    monkeypatch.setattr(ray, "shutdown", lambda: done.append("shutdown"))
    return done


@pytest.mark.engine
def test_a_signal_that_comes_while_ray_starts_is_not_lost(ray_in_name, monkeypatch):
    """Python ignores what is raised between the fork and the exec of a process, and Ray starts several."""

    def start(**_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
        except BaseException:  # noqa: BLE001  (as between fork and exec)
            pass
        ray_in_name.append("start")

    monkeypatch.setattr("ray.init", start)
    with pytest.raises(Terminated), signals_as_exceptions(), ray_session(RayOptions()):
        pytest.fail("the work began")
    assert ray_in_name == ["start", "shutdown"]


@pytest.mark.engine
def test_ray_is_ended_after_its_streams(ray_in_name):
    def stream() -> None:
        time.sleep(0.3)
        ray_in_name.append("stream ends")

    with ray_session(RayOptions()):
        threading.Thread(target=stream, name="StreamingExecutor-of-a-dataset", daemon=True).start()
    assert ray_in_name == ["start", "ask", "stream ends", "shutdown"]


@pytest.mark.engine
def test_the_stream_of_ray_data_is_called_as_the_session_knows_it(ray_cluster):
    import ray.data

    for _ in ray.data.range(2).iter_batches(batch_size=1, prefetch_batches=0):
        assert any(thread.name.startswith("StreamingExecutor") for thread in threading.enumerate())
        return

"""The connection to Ray: quiet, without usage statistics, and ended only by whoever began it."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.engines.ray_data.options import RayOptions
from pipelines.engines.ray_data.placement import ClusterSize, place
from pipelines.errors import PipelineError, UsageError
from pipelines.stages.stage import Resources

#: Packages whose code the workers run.
_PACKAGES = ("spae_core", "schemas", "pipelines")

#: Weights travel through the object store, once for each node; see `model_shipping`.
_NOT_SHIPPED = ("__pycache__/", "*.pyc", "*.safetensors", "*.pt", "*.bin")

#: Time for a machine to accept a connection.
_SECONDS_TO_ANSWER = 5.0

#: How often this process takes its answer to SIGTERM back while Ray starts or ends.
_SECONDS_WITHOUT_ANSWER = 0.01

#: How the threads of Ray Data's streams are called, and the time they get to end.
_STREAM_THREADS, _SECONDS_TO_END = "StreamingExecutor", 30.0

#: Read by Ray when it starts: no statistics to its makers, and no warning of a default that is about to change.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class ClusterStartError(PipelineError):
    """Ray could not be started; nothing was done yet, and the same command can be run again."""


@contextmanager
def ray_session(options: RayOptions) -> Iterator[ClusterSize]:
    """Connect to the cluster, or start one on this machine; what was started or connected here ends with the block.

    Args:
        options: Which cluster.

    Yields:
        What the cluster has.

    Raises:
        UsageError: If there is no cluster at the address.
        ClusterStartError: If none can be started here.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        if options.address is not None and options.address not in ("auto", _address()):
            raise UsageError(
                f"--ray-address: expected the cluster this process is connected to ({_address()}), got "
                f"{options.address}. Call ray.shutdown() first, or leave the address out."
            )
        yield cluster_size()
        return
    # In the main thread Ray would replace this process's answer to SIGTERM by an exit without a word, which gets lost
    # between the fork and the exec of its processes. The thread lives on meanwhile, since they end with it; it does one
    # thing after the other, so what was begun is ended even if a signal came before it was there.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray") as thread:
        thread.submit(int).result()  # A signal while the thread itself starts finds nothing begun.
        try:
            _finish(thread.submit(_connect, options))
            yield cluster_size()
        finally:
            _finish(thread.submit(_disconnect))


def cluster_size() -> ClusterSize:
    """What the connected cluster has now."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return ClusterSize(
        num_cpus=sum(resources.get("CPU", 0.0) for resources in nodes),
        gpus_per_node=tuple(resources["GPU"] for resources in nodes if resources.get("GPU")),
    )


def check_gpus(options: RayOptions, gpu_fraction: float, *, must_have: bool) -> bool:
    """Whether a cluster has the GPUs for a pool.

    Args:
        options: Which cluster, and how many copies of the model.
        gpu_fraction: Share of a GPU for each copy, in (0, 1].
        must_have: A cluster without any GPU is an error too.

    Raises:
        UsageError: If it has too few; the message has what was asked for and what there is.
    """
    with ray_session(options) as cluster:
        if not cluster.num_gpus and not must_have:
            return False
        place(cluster, Resources(gpu_fraction=gpu_fraction), 1.0, options)
        return True


def shipped_code() -> dict[str, Any]:
    """The `runtime_env` that brings this code to the workers of another machine: three packages, no weights."""
    root = Path(__file__).resolve().parents[3]
    return {"py_modules": [str(root / name) for name in _PACKAGES], "excludes": list(_NOT_SHIPPED)}


def _finish(work: "Future[None]") -> None:
    """Wait for Ray, and keep this process's answer to SIGTERM, which Ray's core replaces when it starts and ends.

    The core is set up with Python's lock held, so there is a part of a second in which a signal still goes to it. It
    aborts the process then; no work has begun.
    """
    answer = signal.getsignal(signal.SIGTERM)
    can_keep = answer is not None and threading.current_thread() is threading.main_thread()
    is_over = False
    while not is_over:
        is_over = bool(wait([work], timeout=_SECONDS_WITHOUT_ANSWER).done)
        if can_keep:
            signal.signal(signal.SIGTERM, answer)
    work.result()


def _connect(options: RayOptions) -> None:
    import ray

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ship = options.address is not None if options.ship_code is None else options.ship_code
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if ship:
        quiet["runtime_env"] = shipped_code()
    if options.address is None:
        _start(quiet)
        return
    try:
        _refuse_silence(options.address)
        ray.init(address=options.address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"--ray-address: expected a Ray cluster at {options.address}, got: {reason}. "
            "Start one with `ray start --head`; if it has a token, set RAY_AUTH_MODE=token. Or leave the address out "
            "to use this machine."
        ) from error


def _disconnect() -> None:
    """End Ray once its streams have ended: a thread that calls Ray later ends the whole process without a word."""
    import ray

    for thread in threading.enumerate():
        if thread.name.startswith(_STREAM_THREADS):
            thread.join(_SECONDS_TO_END)
    ray.shutdown()


def _refuse_silence(address: str) -> None:
    """Ask whether anybody listens at HOST:PORT; Ray itself would go on asking for five minutes.

    Raises:
        OSError: If nobody does.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _start(quiet: dict[str, Any]) -> None:
    """Start Ray on this machine: never a cluster that RAY_ADDRESS or an earlier program left open.

    Raises:
        ClusterStartError: If the machine is too busy for it.
    """
    import ray

    try:
        ray.init(address="local", include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises no class of its own here.
        if "timed out during startup" not in str(error):
            raise
        raise ClusterStartError(
            "Ray on this machine: expected it to start within half a minute, got no answer. "
            "Try again when the machine is less busy, or use --engine local."
        ) from error


def _address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)

"""Runs one training on several Ray Train workers: one process a GPU, or several on CPUs.

Ray Train starts the workers, gives each its GPU and joins them into a process group of torch (NCCL on GPUs, gloo on
CPUs). What they do with it is the trainer's business. An error of a worker ends all of them and is raised here as
itself. Restarting is left to the user: the same command resumes from the newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.engines.ray_data.options import RayOptions
from pipelines.engines.ray_data.session import ray_session
from pipelines.errors import PipelineError, UsageError
from spae_core.errors import ModelError, TrainingError
from spae_core.replicas import Replicas


def train_on_workers(
    train: Callable[[Replicas], None], *, num_workers: int, use_gpu: bool, folder: Path, address: str | None = None
) -> None:
    """Call `train` in every worker and wait for all.

    Args:
        train: What a worker does; pickled, so a function of a module or a partial of one.
        num_workers: Processes, one GPU each if `use_gpu`, else one CPU each.
        use_gpu: Whether workers need GPUs.
        folder: For Ray Train's own records.
        address: Of a Ray cluster, which must see the same files as this machine. Default: a cluster of this machine
            alone, for the time of the call.

    Raises:
        UsageError: If there is no such cluster, or it has fewer GPUs or CPUs than workers.
        ClusterStartError: If none can be started here.
        PipelineError, ModelError, TrainingError: What a worker died of.
    """
    # The workers must have this package and see these files anyway, so no code is sent.
    with ray_session(RayOptions(address=address, ship_code=False)) as cluster:
        from ray.train import RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        available = int(cluster.num_gpus if use_gpu else cluster.num_cpus)
        if available < num_workers:
            raise UsageError(
                f"--num-workers: expected at most {available}, the {'GPU' if use_gpu else 'CPU'}s of the Ray cluster, "
                f"got {num_workers}. Lower it, or give the address of a larger cluster."
            )
        trainer = TorchTrainer(
            _work,
            train_loop_config={"train": train, "use_gpu": use_gpu},
            scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            run_config=RunConfig(name="ray_train", storage_path=str(folder.resolve())),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _cause(error) from error


def _work(settings: dict[str, object]) -> None:
    """Runs in each worker."""
    train, use_gpu = settings["train"], settings["use_gpu"]
    assert callable(train)
    # Ray shows each worker its own GPU and no other.
    train(Replicas.of_process_group("cuda" if use_gpu else "cpu"))


def _cause(error: Exception) -> Exception:
    """What a user can act on among the workers' errors; else Ray's report of all of them."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        # Ray wraps what a worker raised, to carry its traceback along.
        for candidate in (failure, getattr(failure, "_base_exc", None), failure.__cause__):
            if isinstance(candidate, PipelineError | ModelError | TrainingError):
                return candidate
    return error

"""How many copies of the model fit a cluster, and what each worker reserves: plain arithmetic, no Ray.

Ray starts a worker only when what it reserves is free, so the sums here must leave room for both kinds: a pool of
actors that reserved every CPU would wait for pictures that nobody may decode.
"""

import math
from dataclasses import dataclass

from pipelines.engines.ray_data.options import RayOptions
from pipelines.errors import UsageError
from pipelines.stages.stage import Resources

#: CPU cores for each copy of a model that runs on CPUs, when the user names no number: its sums use several threads.
_CPUS_PER_CPU_ACTOR = 4

#: Ray counts resources in ten-thousandths; hundredths are fine enough here and read well.
_GRAIN = 100


#: What tells two equal reservations apart.
_UNEQUAL = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSize:
    """What a cluster has.

    Attributes:
        num_cpus: CPU cores of all nodes together.
        gpus_per_node: GPUs of each node that has any.
    """

    num_cpus: float
    gpus_per_node: tuple[float, ...] = ()

    @property
    def num_gpus(self) -> float:
        """GPUs of all nodes together."""
        return sum(self.gpus_per_node)

    def __str__(self) -> str:
        """For messages: `16 CPUs and 2 GPUs`."""
        return f"{self.num_cpus:g} CPUs and {f'{self.num_gpus:g} GPUs' if self.num_gpus else 'no GPU'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What each kind of worker reserves.

    Attributes:
        min_actors: Copies of the model to begin with.
        max_actors: Most copies.
        actor_cpus: CPUs each reserves.
        actor_gpus: Share of a GPU each reserves; 0 on CPUs.
        decode_cpus: CPUs a reading and decoding task reserves.
        num_decode_slots: Such tasks that run at once beside the most actors.
    """

    min_actors: int
    max_actors: int
    actor_cpus: float
    actor_gpus: float
    decode_cpus: float
    num_decode_slots: int


def place(cluster: ClusterSize, model: Resources, decode_cpus: float, options: RayOptions) -> Placement:
    """Fit the actor pool and the decoding tasks into a cluster.

    Args:
        cluster: What there is.
        model: What one copy of the model needs.
        decode_cpus: CPUs a decoding task asks for.
        options: Bounds of the pool.

    Returns:
        A placement in which the actors reserve at most half of the CPUs.

    Raises:
        UsageError: If the GPUs asked for are not there; the message has what was asked and what there is.
    """
    capacity = gpu_capacity(cluster, model.gpu_fraction) if model.gpu_fraction else math.inf
    asked = options.max_actors or options.min_actors
    if capacity < asked:
        raise UsageError(
            f"GPUs: expected room for {asked} x {model.gpu_fraction:g} GPU (workers x GPUs each), got a cluster of "
            f"{cluster}, which holds {capacity:g} of them. Lower --num-workers or --gpus-per-actor, use --device cpu, "
            "or connect to a larger cluster with --ray-address."
        )
    if options.max_actors is not None:
        most: float = options.max_actors
    elif model.gpu_fraction:
        most = capacity
    else:
        most = max(options.min_actors, cluster.num_cpus // _CPUS_PER_CPU_ACTOR, 1)
    max_actors = int(min(most, capacity))
    actor_cpus = min(model.num_cpus, _floor(cluster.num_cpus / 2 / max_actors))
    left = cluster.num_cpus - max_actors * actor_cpus
    decode_cpus = min(decode_cpus, _floor(left))
    if decode_cpus == actor_cpus:
        # Ray Data would run neighbours that reserve the same in one worker: decoding would wait for the model.
        decode_cpus -= _UNEQUAL
    return Placement(
        min_actors=options.min_actors,
        max_actors=max_actors,
        actor_cpus=actor_cpus,
        actor_gpus=model.gpu_fraction,
        decode_cpus=decode_cpus,
        num_decode_slots=max(1, int(left / decode_cpus + 1e-6)),
    )


def gpu_capacity(cluster: ClusterSize, gpu_fraction: float) -> int:
    """Copies that fit: a GPU holds floor(1 / share) of them, for Ray splits no share over two GPUs."""
    per_gpu = int(1 / gpu_fraction + 1e-6)
    return sum(int(gpus) * per_gpu for gpus in cluster.gpus_per_node)


def _floor(cpus: float) -> float:
    """Rounded down to what can be reserved, and never nothing."""
    return max(1, int(cpus * _GRAIN)) / _GRAIN

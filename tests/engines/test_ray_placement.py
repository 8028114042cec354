import pytest

from pipelines.engines.ray_data.options import RayOptions
from pipelines.engines.ray_data.placement import ClusterSize, gpu_capacity, place
from pipelines.errors import UsageError
from pipelines.stages.stage import Resources


@pytest.mark.parametrize("num_cpus", [1, 2, 3, 16, 200])
@pytest.mark.parametrize("max_actors", [None, 1, 2, 7, 300])
def test_the_actors_leave_cpus_for_decoding(num_cpus, max_actors):
    placed = place(ClusterSize(num_cpus=num_cpus), Resources(), 1.0, RayOptions(max_actors=max_actors))
    reserved = placed.max_actors * placed.actor_cpus + placed.num_decode_slots * placed.decode_cpus
    assert placed.max_actors * placed.actor_cpus <= max(num_cpus / 2, 0.01 * placed.max_actors) + 1e-9
    assert placed.num_decode_slots >= 1
    assert placed.decode_cpus != placed.actor_cpus  # Or Ray Data would run both in one worker.
    assert reserved <= num_cpus + 0.01 * placed.max_actors + 1e-9
    if max_actors is not None:
        assert placed.max_actors == max_actors


@pytest.mark.parametrize(
    ("gpus_per_node", "share", "capacity"),
    [
        ((1,), 1.0, 1),
        ((2, 4), 1.0, 6),
        ((2,), 0.5, 4),
        ((1, 1), 0.4, 4),
        ((1,), 0.1, 10),
        ((), 0.5, 0),
        ((3,), 1 / 3, 9),
    ],
)
def test_a_share_is_never_split_over_two_gpus(gpus_per_node, share, capacity):
    assert gpu_capacity(ClusterSize(num_cpus=8, gpus_per_node=gpus_per_node), share) == capacity


def test_a_pool_without_a_bound_fills_the_gpus():
    cluster = ClusterSize(num_cpus=64, gpus_per_node=(4, 4))
    assert place(cluster, Resources(gpu_fraction=0.5), 1.0, RayOptions()).max_actors == 16


def test_more_copies_than_the_gpus_hold_are_refused():
    cluster = ClusterSize(num_cpus=64, gpus_per_node=(1,))
    with pytest.raises(
        UsageError, match=r"expected room for 3 x 0\.5 GPU .* got a cluster of 64 CPUs and 1 GPUs, which"
    ):
        place(cluster, Resources(gpu_fraction=0.5), 1.0, RayOptions(max_actors=3))


def test_bounds_the_wrong_way_round_are_refused():
    with pytest.raises(UsageError, match="expected 1 <= fewest <= most, got 3 to 2"):
        RayOptions(min_actors=3, max_actors=2)

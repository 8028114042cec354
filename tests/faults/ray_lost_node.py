"""A run on a Ray cluster of two nodes that loses one in the middle; a program for `test_ray_node_lost.py`.

Argument: folder. It has a cluster of its own, so it is a process of its own.
"""

import sys
from pathlib import Path

from crashing_stages import FakeModel, PassOn
from ray_runs import made_up_run

NUM_INPUTS, NUM_SHARDS = 320, 8


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, **store})
    node = cluster.add_node(num_cpus=4, **store)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    lost = []

    def lose_the_node(progress) -> None:
        if progress.num_done and not lost:
            lost.append(node)
            cluster.remove_node(node, allow_graceful=False)

    report, _ = made_up_run(
        Path(sys.argv[1]),
        num_inputs=NUM_INPUTS,
        num_shards=NUM_SHARDS,
        feed=PassOn(rejects="/3.jpg"),
        model=FakeModel(seconds=0.1),
        min_actors=2,
        on_progress=lose_the_node,
    )
    assert lost
    assert report.failures == {}
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()

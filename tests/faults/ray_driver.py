"""A driver of a run on Ray that kills itself at a chosen moment; a program for `test_ray_driver_killed.py`.

Arguments: address of the cluster, folder, moment (`before write`, `mid write`, `after write`, `before manifest`).
"""

import os
import signal
import sys
from pathlib import Path

from ray_runs import claim_made_up

from pipelines.commit import ShardWriter
from pipelines.engines.ray_data import RayEngine, RayOptions
from pipelines.storage import TEMPORARY_FOLDER, LocalStorage

NUM_INPUTS, NUM_SHARDS = 60, 4


class DeadlyStorage(LocalStorage):
    """Dies when the second data file is created: before it, half-way through its bytes, or just after."""

    def __init__(self, root: Path, moment: str) -> None:
        super().__init__(root)
        self.moment = moment
        self.num_created = 0

    def __reduce__(self):
        # Workers read the plan from the same place, and live.
        return LocalStorage, (self.root,)

    def create(self, path: str, data: bytes) -> bool:
        if not path.startswith("data/"):
            return super().create(path, data)
        self.num_created += 1
        if self.num_created == 2 and self.moment == "before write":
            die()
        if self.num_created == 2 and self.moment == "mid write":
            (self.root / TEMPORARY_FOLDER).mkdir(exist_ok=True)
            (self.root / TEMPORARY_FOLDER / f"{os.getpid()}-half").write_bytes(data[: len(data) // 2])
            die()
        created = super().create(path, data)
        if self.num_created == 2 and self.moment == "after write":
            die()
        return created


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    from crashing_stages import FakeModel, PassOn

    address, folder, moment = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    claimed = claim_made_up(
        DeadlyStorage(folder / "run", moment), folder / "plan", num_inputs=NUM_INPUTS, num_shards=NUM_SHARDS
    )
    engine = RayEngine(
        feeding_stages=[PassOn(rejects="/3.jpg")],
        model_stage=FakeModel(),
        options=RayOptions(address=address, max_actors=1, ship_code=False),
    )
    writer = ShardWriter(storage=claimed.plan.storage, config=claimed.config)
    engine.run_shards(claimed.plan, claimed.missing, writer, lambda progress: None)
    die()  # "before manifest": every shard is written, nothing says so yet.


if __name__ == "__main__":
    main()

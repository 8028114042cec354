"""A driver of a run over made-up rows that kills itself at a chosen moment; a program for `test_killed_driver.py`.

Arguments: engine, url of the run, folder for its plan, moment, address of the Ray cluster (or `-`).
"""

import asyncio.selector_events
import itertools
import os
import signal
import socket
import sys
from pathlib import Path

from crashing_stages import FakeModel, PassOn
from runs import claim_made_up

from pipelines.engine import Engine, EngineReport
from pipelines.runs.commit import ShardWriter
from pipelines.storage import TEMPORARY_FOLDER, LocalStorage, ObjectStorage, Storage, open_storage

NUM_INPUTS, NUM_SHARDS = 60, 4
MOMENTS = ("before write", "mid write", "after write", "before manifest")


def drive(engine_name: str, storage: Storage, folder: Path, *, address: str | None = None) -> EngineReport:
    """Start or resume the run, and do all shards that are missing."""
    claimed = claim_made_up(storage, folder, num_inputs=NUM_INPUTS, num_shards=NUM_SHARDS)
    writer = ShardWriter(storage=claimed.plan.storage, config=claimed.config)
    return make_engine(engine_name, address).run_shards(claimed.plan, claimed.missing, writer, lambda progress: None)


def make_engine(name: str, address: str | None = None) -> Engine:
    stages = {"feeding_stages": [PassOn(rejects="/3.jpg")], "model_stage": FakeModel()}
    if name == "ray":
        from pipelines.engines.ray_data import RayEngine, RayOptions

        return RayEngine(**stages, options=RayOptions(address=address, max_actors=1, ship_code=False))
    if name == "beam":
        from pipelines.engines.beam import BeamEngine

        return BeamEngine(**stages, num_workers=1)
    from pipelines.engines.local import LocalEngine

    return LocalEngine(**stages, num_threads=2)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str) -> None:
    """Let this process die when it creates its second data file: before it, half-way through its bytes, or just after.

    Other processes (Ray's workers, which only read) live.
    """
    num_created = itertools.count(1)

    def deadly(create):
        def create_and_die(self: Storage, path: str, data: bytes) -> bool:
            if not path.startswith("data/") or next(num_created) != 2:
                return create(self, path, data)
            if moment == "before write":
                die()
            if moment == "mid write" and isinstance(self, LocalStorage):
                half = self.root / TEMPORARY_FOLDER / f"{os.getpid()}-half@{socket.gethostname()}"
                half.parent.mkdir(exist_ok=True)
                half.write_bytes(data[: len(data) // 2])
                die()
            if moment == "mid write":
                die_half_way_through(len(data))
            created = create(self, path, data)
            if moment == "after write":
                die()
            return created

        return create_and_die

    for kind in (LocalStorage, ObjectStorage):
        kind.create = deadly(kind.create)


def die_half_way_through(num_bytes: int) -> None:
    """Let this process die when the next message of so many bytes is half on its way to the object store."""
    transport = asyncio.selector_events._SelectorSocketTransport
    write = transport.write

    def write_half_and_die(self, data) -> None:
        if len(data) < num_bytes:
            write(self, data)
        else:
            self._sock.send(bytes(data)[: len(data) // 2])
            die()

    transport.write = write_half_and_die
    transport.writelines = lambda self, lines: write_half_and_die(self, b"".join(lines))


def main() -> None:
    engine, url, folder, moment, address = sys.argv[1:]
    if moment != "never":
        die_at(moment)
    drive(engine, open_storage(url), Path(folder), address=None if address == "-" else address)
    if moment == "before manifest":
        die()  # every shard is written, nothing says so yet


if __name__ == "__main__":
    main()

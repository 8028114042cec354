"""How long does a run over 36 shards, 35 of them done, take to know what is left? Ours, and Ray Data's checkpoint.

Ours is everything before the first row is read: list the pictures, plan, hash the model, compare with the run that is
there, list its shards. Ray Data's is the time its checkpoint adds until the first row that is left reaches a worker:
the same small pipeline once with the checkpoint of 35 files and once without any. Both must then do the rows that are
left and no others.

Run: python benchmarks/resume_start.py [--rounds N] [--json PATH]
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa
import pyarrow.parquet as pq
from memory_flat import write_model
from PIL import Image
from result_file import installed, write_result

from jobs.cli import main as spae
from pipelines.readers import ListingNotes, list_inputs, open_inputs
from pipelines.runs.claim import ClaimedRun, claim_run
from pipelines.runs.describe_run import describe_run
from pipelines.runs.plan_building import build_plan
from pipelines.storage import LocalStorage

NUM_SHARDS, PICTURES_A_SHARD = 36, 4


def write_pictures(folder: Path) -> None:
    """One small PNG of its own colour for each row."""
    folder.mkdir()
    for number in range(NUM_SHARDS * PICTURES_A_SHARD):
        Image.new("RGB", (8, 8), (number, 255 - number, 7)).save(folder / f"{number:03d}.png")


def resume_ours(folder: Path, round_number: int) -> tuple[float, ClaimedRun]:
    """Seconds until the run knows what is left, and the run."""
    scratch = folder / f"plan-{round_number}"
    scratch.mkdir()
    started = time.perf_counter()
    entries = list_inputs(open_inputs([str(folder / "photos")]), ListingNotes())
    draft = build_plan(entries, folder=scratch, num_shards=NUM_SHARDS)
    described = describe_run(
        draft.summary, model=str(folder / "tiny"), num_layers=None, batch_size=8, device="cpu", command={}
    )
    claimed = claim_run(LocalStorage(folder / "run"), described.config, draft, described.codebook)
    return time.perf_counter() - started, claimed


def resume_ray(folder: Path, round_number: int, *, with_checkpoint: bool) -> tuple[float, list[str]]:
    """Seconds until the first row that is left reaches a worker, and all rows that did."""
    import ray.data
    from ray.data import DataContext
    from ray.data.checkpoint import CheckpointConfig

    seen = folder / f"seen-{round_number}-{with_checkpoint}"
    seen.mkdir()
    ids = [f"{number:03d}" for number in range(NUM_SHARDS * PICTURES_A_SHARD)]
    if not with_checkpoint:
        ids = ids[-PICTURES_A_SHARD:]

    def look(rows: pa.Table) -> pa.Table:
        for sample_id in rows["sample_id"].to_pylist():
            (seen / sample_id).write_text(str(time.time()))
        return rows

    checkpoint = None
    if with_checkpoint:
        done = folder / f"checkpoint-{round_number}"
        done.mkdir()
        for shard in range(NUM_SHARDS - 1):
            some = ids[shard * PICTURES_A_SHARD : (shard + 1) * PICTURES_A_SHARD]
            pq.write_table(pa.table({"sample_id": some}), done / f"{shard:05d}.parquet")
        checkpoint = CheckpointConfig(
            id_column="sample_id", checkpoint_path=str(done), delete_checkpoint_on_success=False
        )
    source = folder / f"ids-{round_number}-{with_checkpoint}.parquet"
    pq.write_table(pa.table({"sample_id": ids}), source)
    DataContext.get_current().checkpoint_config = checkpoint
    started = time.time()
    dataset = ray.data.read_parquet(str(source)).map_batches(look, batch_format="pyarrow")
    dataset.write_parquet(str(folder / f"ray-{round_number}-{with_checkpoint}"))
    DataContext.get_current().checkpoint_config = None
    return min(float(path.read_text()) for path in seen.iterdir()) - started, sorted(p.name for p in seen.iterdir())


def main() -> None:
    """Measure, compare what is left, report; exit code 1 if the two would not do the same rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import ray

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "photos")
        write_model(folder / "tiny")
        words = ["tokenize", folder / "photos", "--model", folder / "tiny", "--num-shards", NUM_SHARDS]
        if spae([*map(str, words), "--out", str(folder / "run")]):
            raise SystemExit("resume_start: expected the run to finish, got the error above.")
        for gone in (f"data/part-{NUM_SHARDS - 1:05d}.parquet", "manifest.json", "_SUCCESS"):
            (folder / "run" / gone).unlink()
        ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        ours, theirs, is_equal = [], [], True
        for number in range(arguments.rounds):
            seconds, claimed = resume_ours(folder, number)
            ours.append(seconds)
            without, rows = resume_ray(folder, number, with_checkpoint=False)
            with_it, rows_left = resume_ray(folder, number, with_checkpoint=True)
            theirs.append(with_it - without)
            is_equal &= claimed.missing == [NUM_SHARDS - 1] and rows == rows_left
        ray.shutdown()
    print(
        f"until the run knows what is left, best of {arguments.rounds}: ours {min(ours):.2f} s, "
        f"Ray Data's checkpoint {min(theirs):.2f} s; the same rows: {is_equal}"
    )
    if arguments.json:
        write_result(
            arguments.json,
            "resume_start",
            versions=installed("ray", "pyarrow", "torch"),
            ours={"seconds": ours},
            peers=[{"name": "ray.data checkpoint", "seconds": theirs}],
            equal=is_equal,
        )
    sys.exit(0 if is_equal else 1)


if __name__ == "__main__":
    main()

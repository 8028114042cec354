"""Small corpora and runs for tests: made-up pictures, and runs written without a model."""

import io
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.readers import InputEntry
from pipelines.runs.claim import ClaimedRun, claim_run
from pipelines.runs.commit import ShardWriter
from pipelines.runs.manifest import finish_run
from pipelines.runs.plan import DraftPlan
from pipelines.runs.plan_building import build_plan
from pipelines.runs.run_config import RunConfig, RunSettings
from pipelines.stages.stage import RejectedRow
from pipelines.storage import LocalStorage, Storage
from schemas.codebook_table import codebook_table
from schemas.tokens import tokens_schema

LAYER_GRIDS = ((1, 1), (2, 2))
CODEBOOK_SIZE = 10


def write_pictures(folder: Path, num_pictures: int, *, num_bad: int = 0, seed: int = 0) -> Path:
    """PNG pictures `picture-000.png` … of coloured blocks, each different; and `bad-0.png` …, which are none."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(num_pictures):
        blocks = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        sink = io.BytesIO()
        Image.fromarray(np.kron(blocks, np.ones((9, 9, 1), np.uint8))).save(sink, format="PNG")
        (folder / f"picture-{number:03d}.png").write_bytes(sink.getvalue())
    for number in range(num_bad):
        (folder / f"bad-{number}.png").write_bytes(b"garbage")
    return folder


def entries(num_entries: int, *, size_bytes: int = 7) -> list[InputEntry]:
    return [
        InputEntry(uri=f"/photos/{number}.jpg", size_bytes=size_bytes, etag_or_mtime=f"m{number}")
        for number in range(num_entries)
    ]


def draft_plan(folder: Path, num_inputs: int = 12, *, num_shards: int = 3, size_bytes: int = 7) -> DraftPlan:
    folder.mkdir(parents=True, exist_ok=True)
    return build_plan(entries(num_inputs, size_bytes=size_bytes), folder=folder, num_shards=num_shards)


def run_config(draft: DraftPlan, *, batch_size: int = 4, torch_version: str = "1.0") -> RunConfig:
    settings = RunSettings(
        model_sha256="a" * 64,
        codebook_sha256="b" * 64,
        codebook_size=CODEBOOK_SIZE,
        layer_grids=LAYER_GRIDS,
        image_size_px=32,
        preprocessing="made up",
        decoder="none 1.0",
        batch_size=batch_size,
        device="cpu",
        num_shards=draft.summary.num_shards,
        num_inputs=draft.summary.num_inputs,
        plan_sha256=draft.summary.sha256,
    )
    return RunConfig(
        settings=settings,
        model="made-up",
        command={"inputs": ["/photos"]},
        versions={"torch": torch_version},
        git_commit=None,
    )


def claim_made_up(
    storage: Storage, folder: Path, *, num_inputs: int = 12, num_shards: int = 3, **config: object
) -> ClaimedRun:
    """Start or resume a run over inputs `/photos/0.jpg` … that nobody reads."""
    draft = draft_plan(folder, num_inputs, num_shards=num_shards)
    words = [f"word{index}" for index in range(CODEBOOK_SIZE)]
    table = codebook_table(
        words=words, token_ids=range(100, 100 + CODEBOOK_SIZE), codebook_sha256="b" * 64, source="made up"
    )
    return claim_run(storage, run_config(draft, **config), draft, table)  # type: ignore[arg-type]


def token_rows(sample_ids: list[str]) -> pa.RecordBatch:
    """Rows of the token dataset whose tokens follow from the ids."""
    rows = [
        {
            "sample_id": sample_id,
            "uri": f"/photos/{sample_id}.jpg",
            "content_sha256": sample_id * 2,
            "width_px": 640,
            "height_px": 480,
            **{
                f"tokens_{layer}": [(int(sample_id[:4], 16) + cell) % CODEBOOK_SIZE for cell in range(h * w)]
                for layer, (h, w) in enumerate(LAYER_GRIDS)
            },
        }
        for sample_id in sample_ids
    ]
    return pa.RecordBatch.from_pylist(rows, schema=tokens_schema(len(LAYER_GRIDS)))


def rejected_row(sample_id: str, message: str = "it is made up") -> RejectedRow:
    return RejectedRow(
        sample_id=sample_id, uri=f"/{sample_id}", stage="decode_images", error_class="MadeUp", message=message
    )


def finished_run(folder: Path) -> LocalStorage:
    """A whole run of 12 inputs in 3 shards, the first id of each shard in quarantine."""
    storage = LocalStorage(folder / "run")
    run = claim_made_up(storage, folder / "plan")
    writer = ShardWriter(storage=storage, config=run.config)
    parts = []
    for shard in run.missing:
        ids = run.plan.read_shard(shard)["sample_id"].to_pylist()
        parts.append(
            writer.commit(
                shard,
                sample_ids=ids,
                batches=[token_rows(ids[1:])],
                rejected=[rejected_row(i) for i in ids[:1]],
            )
        )
    finish_run(
        run,
        storage=storage,
        known_parts=parts,
        num_processed=12,
        wall_seconds=1.0,
        stages={},
        bottleneck=None,
        max_quarantined_fraction=0.5,
    )
    return storage


def files_below(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def spae_process(*words: object) -> "subprocess.Popen[str]":
    """Start `spae` as a process of its own."""
    command = [sys.executable, "-c", "from jobs.cli import main; raise SystemExit(main())", *map(str, words)]
    root = Path(__file__).resolve().parents[1]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Wait till a file is there or the process has ended."""
    while process.poll() is None and not path.exists():
        time.sleep(0.0005)


def winners_of_a_race(num_writers: int, attempt: Callable[[int], bool]) -> list[int]:
    """Numbers of the writers whose attempt succeeded, of many that begin at once."""
    barrier, winners = threading.Barrier(num_writers), []

    def run(number: int) -> None:
        barrier.wait()
        if attempt(number):
            winners.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(num_writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow past so many bytes: writing past it fails like a full disk.

    The limit holds for pytest's own log too, so it is lifted before a test ends.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

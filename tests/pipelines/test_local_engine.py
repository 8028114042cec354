import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from crashing_stages import StageOfIds
from runs import CODEBOOK_SIZE, LAYER_GRIDS, claim_made_up, files_below

from pipelines.engines.local import LocalEngine
from pipelines.runs.commit import ShardWriter
from pipelines.stages.stage import RejectedRow, Resources, StageResult
from pipelines.storage import LocalStorage
from schemas.tokens import tokens_schema

NUM_INPUTS, NUM_SHARDS = 12, 3


@dataclass(frozen=True, kw_only=True)
class Feed(StageOfIds):
    """Stands for reading and decoding: passes ids on, rejects some, and counts how many chunks it was given."""

    name = "feed"

    bad_uris: tuple[str, ...] = ()
    seconds: float = 0.0
    started: list[int] = field(default_factory=list)

    def run(self, batch: pa.RecordBatch) -> StageResult:
        self.started.append(batch.num_rows)
        time.sleep(self.seconds)
        bad = [row for row in batch.select(["sample_id", "uri"]).to_pylist() if row["uri"] in self.bad_uris]
        rejected = tuple(RejectedRow(**row, stage=self.name, error_class="Bad", message="bad") for row in bad)
        keep = [uri not in self.bad_uris for uri in batch["uri"].to_pylist()]
        good = batch.select(["sample_id", "uri"]).filter(pa.array(keep, pa.bool_()))
        return StageResult(batch=good, rejected=rejected)


@dataclass(frozen=True, kw_only=True)
class Tokens(StageOfIds):
    """Stands for the model: tokens that follow from the id, and poison where a uri says so."""

    name = "tokens"

    batch_size: int = 4
    poison_uris: tuple[str, ...] = ()
    seconds: float = 0.0
    batch_sizes: list[int] = field(default_factory=list)

    @property
    def resources(self) -> Resources:
        return Resources(batch_size=self.batch_size)

    @property
    def output_schema(self) -> pa.Schema:
        return tokens_schema(len(LAYER_GRIDS))

    def run(self, batch: pa.RecordBatch) -> StageResult:
        self.batch_sizes.append(batch.num_rows)
        time.sleep(self.seconds)
        if set(batch["uri"].to_pylist()) & set(self.poison_uris):
            raise RuntimeError("poison")
        rows = [
            {
                "sample_id": row["sample_id"],
                "uri": row["uri"],
                "content_sha256": "c",
                "width_px": 1,
                "height_px": 1,
                "tokens_0": [int(row["sample_id"][:4], 16) % CODEBOOK_SIZE],
                "tokens_1": [1, 2, 3, 4],
            }
            for row in batch.to_pylist()
        ]
        return StageResult(batch=pa.RecordBatch.from_pylist(rows, schema=self.output_schema))


def run(folder: Path, *, feed: Feed, model: Tokens, on_progress=lambda progress: None, **engine: int):
    """Run all shards of a small plan; the report and the storage."""
    storage = LocalStorage(folder / "run")
    claimed = claim_made_up(storage, folder / "plan")
    local = LocalEngine(feeding_stages=[feed], model_stage=model, **{"num_threads": 2, **engine})
    writer = ShardWriter(storage=storage, config=claimed.config)
    return local.run_shards(claimed.plan, claimed.missing, writer, on_progress), storage


def test_every_row_is_committed_or_quarantined(tmp_path):
    bad = ("/photos/3.jpg", "/photos/8.jpg")
    report, storage = run(tmp_path, feed=Feed(bad_uris=bad), model=Tokens(poison_uris=("/photos/5.jpg",)))
    assert sum(part.num_rows for part in report.parts) == NUM_INPUTS - 3
    assert sum(part.num_quarantined for part in report.parts) == 3
    assert [part.shard for part in report.parts] == [0, 1, 2]
    assert report.num_processed == NUM_INPUTS
    assert storage.names("data") == storage.names("quarantine")


@pytest.mark.parametrize(("num_threads", "rows_per_chunk"), [(1, 1), (1, 100), (3, 2), (8, 5)])
def test_the_bytes_do_not_depend_on_threads_or_chunks(tmp_path, num_threads, rows_per_chunk):
    files = []
    for name, engine in (
        ("a", {}),
        ("b", {"num_threads": num_threads, "rows_per_chunk": rows_per_chunk}),
    ):
        _, storage = run(tmp_path / name, feed=Feed(bad_uris=("/photos/3.jpg",)), model=Tokens(), **engine)
        files.append(files_below(storage.root))
    assert files[0] == files[1]


def test_the_model_gets_full_batches_within_a_shard(tmp_path):
    model = Tokens(batch_size=3)
    report, _ = run(tmp_path, feed=Feed(), model=model, rows_per_chunk=1)
    expected = []
    for part in report.parts:
        expected += [3] * (part.num_rows // 3) + [part.num_rows % 3] * (part.num_rows % 3 > 0)
    assert model.batch_sizes == expected


def test_reading_ahead_is_bounded(tmp_path):
    feed = Feed()
    ahead = []

    def on_progress(progress) -> None:
        ahead.append(sum(feed.started) - progress.num_done)

    run(
        tmp_path,
        feed=feed,
        model=Tokens(batch_size=1, seconds=0.01),
        on_progress=on_progress,
        num_threads=1,
        rows_per_chunk=1,
    )
    assert max(ahead) <= 3


def test_a_shard_that_cannot_be_written_leaves_the_others(tmp_path):
    blocked = tmp_path / "run" / "quarantine" / "part-00001.parquet"
    blocked.mkdir(parents=True)
    report, storage = run(tmp_path, feed=Feed(), model=Tokens())
    assert storage.names("data") == ["part-00000.parquet", "part-00002.parquet"]
    assert list(report.failures) == [1]
    assert "part-00001.parquet" in report.failures[1]


def test_an_error_that_stops_the_run_ends_the_threads_and_keeps_what_is_committed(tmp_path):
    def stop(progress) -> None:
        if progress.committed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, feed=Feed(), model=Tokens(), on_progress=stop)
    assert LocalStorage(tmp_path / "run").names("data") == ["part-00000.parquet"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_fault_of_the_program_is_not_hidden(tmp_path):
    class Broken(Feed):
        def run(self, batch: pa.RecordBatch) -> StageResult:
            raise TypeError("a fault of the program")

    with pytest.raises(TypeError, match="a fault of the program"):
        run(tmp_path, feed=Broken(), model=Tokens())


@pytest.mark.parametrize(("slow", "name"), [("feed", "feed"), ("model", "tokens")])
def test_the_slowest_stage_is_named(tmp_path, slow, name):
    report, _ = run(
        tmp_path,
        feed=Feed(seconds=0.2 if slow == "feed" else 0.0),
        model=Tokens(seconds=0.2 if slow == "model" else 0.0),
        num_threads=1,
    )
    assert report.bottleneck == name
    assert report.stages[name].busy_seconds >= 0.2
    waiting = report.stages["tokens"].wait_seconds if slow == "feed" else report.stages["feed"].idle_seconds
    assert waiting > 0.1


def test_progress_counts_every_row_and_names_each_commit(tmp_path):
    seen = []
    run(tmp_path, feed=Feed(bad_uris=("/photos/3.jpg",)), model=Tokens(), on_progress=seen.append)
    assert seen[-1].num_done == NUM_INPUTS
    assert seen[-1].num_rejected == 1
    assert [progress.committed.shard for progress in seen if progress.committed] == [0, 1, 2]

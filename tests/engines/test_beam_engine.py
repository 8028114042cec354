"""The Beam engine against the local one, on Beam's own runner: in this process, in threads, in processes."""

import pickle
import time
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import write_pictures
from tiny_runs import TinyRun

from pipelines.engines.beam.model_handler import StageModelHandler
from pipelines.errors import BadDataError, StorageFullError, UsageError
from pipelines.stages.stage import StageResult
from pipelines.stages.tokenize_images import TokenizeImages
from pipelines.storage import LocalStorage

pytestmark = pytest.mark.engine

NUM_GOOD, NUM_BAD, NUM_SHARDS = 60, 3, 5
POISON = ("picture-017.png", "picture-041.png")
SEVEN_THREADS = {"num_workers": 7, "options": ["--direct_running_mode=multi_threading"]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = write_pictures(tmp_path_factory.mktemp("photos"), NUM_GOOD)
    for number in range(NUM_BAD):
        (folder / f"bad-{number}.png").write_bytes(b"garbage")
    return folder


@pytest.fixture
def new_run(photos, tiny_model_dir, tmp_path):
    def make(name: str = "run", **settings: object) -> TinyRun:
        return TinyRun.over(photos, tmp_path / name, tiny_model_dir, **settings)

    return make


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="1 worker"),
        pytest.param({"shards_per_pipeline": 2, "rows_per_chunk": 3}, id="1 worker, several pipelines"),
        pytest.param(SEVEN_THREADS, id="7 workers"),
    ],
)
def test_beam_writes_the_bytes_of_the_local_engine_quarantine_included(new_run, settings):
    local, beam = new_run("local", poison_names=POISON), new_run("beam", poison_names=POISON)
    local.run(local.local())
    report = beam.run(beam.beam(**settings))
    assert beam.parts() == local.parts()
    assert len(beam.parts()) == 2 * NUM_SHARDS
    assert sum(part.num_rows for part in report.parts) == NUM_GOOD - len(POISON)
    assert sum(part.num_quarantined for part in report.parts) == NUM_BAD + len(POISON)
    assert report.num_processed == NUM_GOOD + NUM_BAD
    assert not report.failures


def test_a_run_begun_with_one_worker_ends_with_seven_and_the_same_bytes(new_run):
    local, beam = new_run("local"), new_run("beam")
    local.run(local.local())
    beam.run(beam.beam(), shards=[0, 3])
    begun = beam.parts()
    assert len(begun) == 4
    resumed = new_run("beam")
    assert resumed.claimed.missing == [1, 2, 4]
    report = resumed.run(resumed.beam(**SEVEN_THREADS))
    assert [part.shard for part in report.parts] == [1, 2, 4]
    assert resumed.parts() == local.parts()
    assert {name: resumed.parts()[name] for name in begun} == begun
    assert report.stages["tokenize_images"].num_workers == 7


def test_one_poison_row_in_64_at_batch_16_costs_one_row(tmp_path, tiny_model_dir):
    photos = write_pictures(tmp_path / "photos", 64)
    run = TinyRun.over(
        photos, tmp_path / "run", tiny_model_dir, num_shards=1, batch_size=16, poison_names=("picture-033.png",)
    )
    (part,) = run.run(run.beam()).parts
    assert (part.num_rows, part.num_quarantined) == (63, 1)
    (row,) = pq.read_table(run.folder / "quarantine").to_pylist()
    assert row["uri"].endswith("picture-033.png")
    assert (row["stage"], row["error_class"], row["message"]) == ("tokenize_images", "RuntimeError", "the model choked")


def test_a_shard_without_rows_is_committed(tmp_path, tiny_model_dir):
    photos = write_pictures(tmp_path / "photos", 3)
    run = TinyRun.over(photos, tmp_path / "run", tiny_model_dir, num_shards=9)
    report = run.run(run.beam())
    assert [part.shard for part in report.parts] == list(range(9))
    assert sum(part.num_rows for part in report.parts) == 3


def test_progress_names_each_commit_and_busy_seconds_name_the_bottleneck(new_run):
    run = new_run()
    report = run.run(run.beam())
    assert sorted(progress.committed.shard for progress in run.seen if progress.committed) == list(range(NUM_SHARDS))
    assert run.seen[-1].num_done == NUM_GOOD + NUM_BAD
    assert run.seen[-1].reasons == {"decode_images/NotAnImage": NUM_BAD}
    assert list(report.stages) == ["read_inputs", "decode_images", "tokenize_images", "commit_shards"]
    assert all(timing.busy_seconds > 0 for timing in report.stages.values())
    assert report.bottleneck == max(report.stages, key=lambda name: report.stages[name].busy_seconds)


def test_a_shard_that_cannot_be_written_leaves_the_others(new_run):
    run = new_run()
    (run.folder / "quarantine" / "part-00001.parquet").mkdir(parents=True)
    report = run.run(run.beam())
    assert [part.shard for part in report.parts] == [0, 2, 3, 4]
    assert list(report.failures) == [1]
    assert "part-00001.parquet" in report.failures[1]


class FullDisk(LocalStorage):
    """A disk that is full as soon as some shards are there."""

    def create(self, path: str, data: bytes) -> bool:
        if len(self.names("data")) >= 2:
            raise StorageFullError(f"output {path}: expected room for the file, got: none.")
        return super().create(path, data)


def test_a_full_disk_ends_the_run_and_keeps_what_is_committed(new_run):
    run = new_run()
    writer = replace(run.writer, storage=FullDisk(run.folder))
    engine = run.beam(shards_per_pipeline=1)
    with pytest.raises(StorageFullError, match="expected room for the file"):
        engine.run_shards(run.claimed.plan, run.claimed.missing, writer, run.seen.append)
    assert writer.storage.names("data") == ["part-00000.parquet", "part-00001.parquet"]


@dataclass(frozen=True, kw_only=True)
class SlowTokenizer(TokenizeImages):
    """The tokenizer on a slow machine."""

    def run(self, batch: pa.RecordBatch) -> StageResult:
        time.sleep(0.3)
        return super().run(batch)


def test_the_error_budget_stops_a_pipeline_before_it_commits_anything(new_run):
    run = new_run()
    model = SlowTokenizer(
        model=run.model.model, model_sha256=run.model.model_sha256, num_layers=run.model.num_layers, batch_size=8
    )

    def refuse(progress) -> None:
        if progress.num_rejected:
            raise BadDataError("too many are bad")

    run.model = model
    started = time.monotonic()
    with pytest.raises(BadDataError, match="too many are bad"):
        run.beam().run_shards(run.claimed.plan, run.claimed.missing, run.writer, refuse)
    assert run.parts() == {}
    assert time.monotonic() - started < 60


def test_another_model_than_planned_is_refused_in_our_own_words(new_run):
    run = new_run()
    run.model = replace(run.model, model_sha256="0" * 64)
    with pytest.raises(UsageError, match=r"^model .*: expected weights of sha256 0{64}, got [0-9a-f]{64}\. [^\[\n]*\Z"):
        run.run(run.beam())
    assert run.parts() == {}


class Broken(TokenizeImages):
    """A stage with a fault of the program."""

    def run(self, batch: pa.RecordBatch) -> StageResult:
        raise TypeError("a fault of the program")


def test_a_fault_of_the_program_is_not_hidden(new_run):
    run = new_run()
    run.model = Broken(model=run.model.model, model_sha256=run.model.model_sha256, num_layers=1)
    with pytest.raises(TypeError, match="a fault of the program"):
        run.run(run.beam())
    assert run.parts() == {}


def test_the_handler_travels_without_its_model(new_run):
    stage = new_run().model
    empty = len(pickle.dumps(StageModelHandler(stage)))
    stage.setup()
    data = pickle.dumps(StageModelHandler(stage))
    assert len(data) == empty < 2000
    again = pickle.loads(data)
    assert again.batch_elements_kwargs() == {"min_batch_size": 8, "max_batch_size": 8}
    assert "_tokenizer" not in vars(again._stage)


@pytest.mark.parametrize(("gpu_fraction", "is_shared"), [(0.0, False), (0.5, True)])
def test_a_model_on_a_gpu_is_shared_by_the_processes_of_a_machine(new_run, gpu_fraction, is_shared):
    stage = replace(new_run().model, gpu_fraction=gpu_fraction)
    assert StageModelHandler(stage).share_model_across_processes() is is_shared


def test_a_shared_model_gives_the_same_bytes(new_run):
    local, beam = new_run("local", poison_names=POISON), new_run("beam", poison_names=POISON)
    local.run(local.local())
    beam.run(beam.beam(share_model=True))
    assert beam.parts() == local.parts()

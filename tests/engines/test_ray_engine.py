import time

import pyarrow.parquet as pq
import pytest
from crashing_stages import FakeModel, PassOn
from ray_runs import made_up_run, run_on_ray
from runs import claim_made_up, files_below

from pipelines.errors import PipelineError, UsageError
from pipelines.stages.supervised import WORKER_DIED, Supervised
from pipelines.storage import LocalStorage

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("ray_cluster")]


def uris(storage: LocalStorage, folder: str = "data") -> list[str]:
    tables = [pq.read_table(path) for path in sorted((storage.root / folder).iterdir())]
    return sorted(uri for table in tables for uri in table["uri"].to_pylist())


def planned(num_inputs: int) -> list[str]:
    return sorted(f"/photos/{number}.jpg" for number in range(num_inputs))


def test_every_row_is_committed_or_quarantined_and_told(tmp_path):
    seen = []
    report, storage = made_up_run(
        tmp_path,
        feed=PassOn(rejects="/3.jpg"),
        model=FakeModel(rejects="/5.jpg", batch_size=3),
        on_progress=seen.append,
    )
    assert uris(storage) == [uri for uri in planned(12) if uri not in ("/photos/3.jpg", "/photos/5.jpg")]
    assert uris(storage, "quarantine") == ["/photos/3.jpg", "/photos/5.jpg"]
    assert report.num_processed == seen[-1].num_done == 12
    assert dict(seen[-1].reasons) == {"pass_on/Bad": 1, "fake_model/Bad": 1}
    assert sorted(progress.committed.shard for progress in seen if progress.committed) == [0, 1, 2]
    assert [part.shard for part in report.parts] == [0, 1, 2]
    assert list(report.stages) == ["pass_on", "fake_model", "commit_shards"]
    assert all(timing.busy_seconds > 0 for timing in report.stages.values())


def test_workers_that_cannot_read_the_plan_say_what_they_lack(tmp_path):
    claimed = claim_made_up(LocalStorage(tmp_path / "run"), tmp_path / "plan")
    for name in claimed.plan.file_names:
        (tmp_path / "run" / name).unlink()
    with pytest.raises(PipelineError, match=r"expected the Ray worker on .* to read it, got: .*No such file"):
        run_on_ray(claimed)


def test_shards_without_rows_are_committed_too(tmp_path):
    report, storage = made_up_run(tmp_path, num_inputs=2, num_shards=8)
    assert len(storage.names("data")) == len(report.parts) == 8
    assert uris(storage) == planned(2)


def test_the_same_job_twice_leaves_the_same_100_rows(tmp_path):
    _, storage = made_up_run(tmp_path, num_inputs=100, num_shards=4)
    before = files_below(storage.root)
    claimed = claim_made_up(storage, tmp_path / "plan", num_inputs=100, num_shards=4)
    assert claimed.missing == []
    run_on_ray(claimed, shards=[0, 1, 2, 3])  # Even if asked to.
    assert files_below(storage.root) == before
    assert uris(storage) == planned(100)


def fail_half_way(progress) -> None:
    if progress.num_done > 50:
        raise UsageError("failed half-way")


@pytest.mark.parametrize(
    "failing",
    [{"model": FakeModel(refuses="failed at once")}, {"on_progress": fail_half_way}],
    ids=["at once", "half-way"],
)
def test_a_second_run_over_the_first_that_fails_leaves_the_old_100_rows(tmp_path, failing):
    _, storage = made_up_run(tmp_path, num_inputs=100, num_shards=4)
    before = files_below(storage.root)
    claimed = claim_made_up(storage, tmp_path / "plan", num_inputs=100, num_shards=4)
    with pytest.raises(UsageError, match=r"^failed"):
        run_on_ray(claimed, shards=[0, 1, 2, 3], **failing)
    assert files_below(storage.root) == before
    assert uris(storage) == planned(100)


def test_a_resume_over_35_files_begins_within_two_seconds(tmp_path, record_property):
    storage = LocalStorage(tmp_path / "run")
    claimed = claim_made_up(storage, tmp_path / "plan", num_inputs=72, num_shards=36)
    run_on_ray(claimed, shards=list(range(35)))
    started = time.perf_counter()
    again = claim_made_up(storage, tmp_path / "plan", num_inputs=72, num_shards=36)
    seconds = time.perf_counter() - started
    record_property("seconds", seconds)
    assert again.missing == [35]
    assert seconds < 2
    run_on_ray(again)
    assert uris(storage) == planned(72)


@pytest.mark.parametrize("victim", ["actor", "decode task"])
def test_a_killed_worker_costs_nothing(tmp_path, victim):
    killed = tmp_path / "killed"
    kill = {"kills_once": killed}
    report, storage = made_up_run(
        tmp_path,
        num_inputs=80,
        feed=PassOn(**(kill if victim == "decode task" else {})),
        model=FakeModel(**(kill if victim == "actor" else {})),
    )
    assert killed.exists()
    assert uris(storage) == planned(80)
    assert report.num_processed == 80
    assert report.failures == {}


def test_a_picture_that_kills_the_decoder_costs_itself_alone(tmp_path):
    _, storage = made_up_run(tmp_path, feed=Supervised(stage=PassOn(dies_on="/7.jpg")))
    assert uris(storage) == [uri for uri in planned(12) if uri != "/photos/7.jpg"]
    assert uris(storage, "quarantine") == ["/photos/7.jpg"]
    tables = [pq.read_table(path) for path in (storage.root / "quarantine").iterdir()]
    assert {cls for table in tables for cls in table["error_class"].to_pylist()} == {WORKER_DIED}


def test_a_shard_that_cannot_be_written_leaves_the_others(tmp_path):
    (tmp_path / "run" / "quarantine" / "part-00001.parquet").mkdir(parents=True)
    report, storage = made_up_run(tmp_path)
    assert storage.names("data") == ["part-00000.parquet", "part-00002.parquet"]
    assert list(report.failures) == [1]


def test_an_interruption_keeps_what_is_committed_and_a_resume_does_the_rest(tmp_path):
    def stop(progress) -> None:
        if progress.committed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_up_run(tmp_path, num_inputs=300, num_shards=10, model=FakeModel(seconds=0.1), on_progress=stop)
    storage = LocalStorage(tmp_path / "run")
    num_committed = len(storage.names("data"))
    assert 1 <= num_committed < 10
    claimed = claim_made_up(storage, tmp_path / "plan", num_inputs=300, num_shards=10)
    assert len(claimed.missing) == 10 - num_committed
    run_on_ray(claimed)
    assert uris(storage) == planned(300)


@pytest.mark.parametrize(("share", "shown"), [(1.0, ["0", "1"]), (0.5, ["0", "0", "1", "1"])])
def test_each_actor_sees_its_own_gpu_and_shares_are_packed(tmp_path, share, shown):
    notes = tmp_path / "notes"
    notes.mkdir()
    num_actors = len(shown)
    model = FakeModel(gpu_fraction=share, notes=notes, num_meeting=num_actors)
    made_up_run(tmp_path, model=model, min_actors=num_actors, max_actors=num_actors)
    assert sorted(path.read_text() for path in notes.iterdir()) == shown


def test_decoding_and_model_do_not_share_a_process(tmp_path):
    folders = [tmp_path / "decoding", tmp_path / "model"]
    for folder in folders:
        folder.mkdir()
    made_up_run(tmp_path, num_inputs=80, feed=PassOn(notes=folders[0]), model=FakeModel(notes=folders[1]))
    decoding, model = ({path.name for path in folder.iterdir()} for folder in folders)
    assert decoding
    assert model
    assert decoding.isdisjoint(model)


def test_the_pool_grows_while_pictures_wait_and_no_further_than_told(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    slow = FakeModel(seconds=0.1, batch_size=4, notes=notes)
    report, _ = made_up_run(tmp_path, num_inputs=320, model=slow, min_actors=1, max_actors=2)
    assert len(list(notes.iterdir())) == report.stages["fake_model"].num_workers == 2


def test_gpus_that_are_not_there_are_refused_at_once_with_both_numbers(tmp_path):
    started = time.perf_counter()
    with pytest.raises(
        UsageError, match=r"expected room for 5 x 0\.5 GPU .* got a cluster of 9 CPUs and 2 GPUs, which"
    ):
        made_up_run(tmp_path, model=FakeModel(gpu_fraction=0.5), min_actors=5, max_actors=5)
    assert time.perf_counter() - started < 10
    assert not (tmp_path / "run" / "data").exists()


def test_sigterm_is_answered_as_before(tmp_path):
    import signal

    before = signal.getsignal(signal.SIGTERM)
    made_up_run(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before

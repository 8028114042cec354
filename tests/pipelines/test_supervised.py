import os
import pickle
import signal
import threading
from dataclasses import dataclass

import pyarrow as pa
import pytest
from crashing_stages import SCHEMA, PassOn
from pictures import encode, photo

from pipelines import child_process
from pipelines.batch_bytes import batch_to_bytes
from pipelines.bisection import run_isolating
from pipelines.child_process import StageChild, end_idle_children
from pipelines.stages.decode_images import DecodeImages
from pipelines.stages.stage import StageResult
from pipelines.stages.supervised import WORKER_DIED, Supervised


def rows(num_rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"sample_id": f"{row:04x}", "uri": f"/photos/{row}.jpg"} for row in range(num_rows)], schema=SCHEMA
    )


@pytest.mark.parametrize(("dies_by", "how"), [(None, "exit code 3"), (signal.SIGSEGV, "signal SIGSEGV")])
def test_a_picture_that_kills_its_process_is_the_only_one_lost(dies_by, how):
    stage = Supervised(stage=PassOn(dies_on="/5.jpg", dies_by=dies_by, rejects="/2.jpg"))
    result = run_isolating(stage, rows(8))
    assert result.batch["uri"].to_pylist() == [f"/photos/{row}.jpg" for row in (0, 1, 3, 4, 6, 7)]
    by_uri = {row.uri: row for row in result.rejected}
    assert set(by_uri) == {"/photos/2.jpg", "/photos/5.jpg"}
    died = by_uri["/photos/5.jpg"]
    assert (died.stage, died.error_class) == ("pass_on", WORKER_DIED)
    assert how in died.message
    assert by_uri["/photos/2.jpg"].error_class == "Bad"


def test_a_child_that_is_killed_once_costs_no_picture(tmp_path):
    stage = Supervised(stage=PassOn(kills_once=tmp_path / "killed"))
    result = stage.run(rows(1))
    assert (tmp_path / "killed").exists()
    assert result.batch.num_rows == 1
    assert result.rejected == ()


def test_it_gives_what_the_stage_gives_and_keeps_its_child():
    encoded = [encode(photo(40, 30, seed), "JPEG") for seed in range(3)] + [b"garbage"]
    batch = pa.RecordBatch.from_pydict(
        {"sample_id": list("abcd"), "uri": list("abcd"), "bytes": encoded, "own": [1, 2, 3, 4]},
        schema=pa.schema([*DecodeImages.INPUT_SCHEMA, ("own", pa.int64())]),
    )
    decode = DecodeImages(image_size_px=32)
    supervised = Supervised(stage=decode)
    end_idle_children()
    assert supervised.run(batch[1:]) == decode.run(batch[1:])
    (child,) = child_process._idle
    assert supervised.run(batch[:0]) == decode.run(batch[:0])
    assert supervised.run(batch) == decode.run(batch)
    assert child_process._idle == [child]
    assert (supervised.name, supervised.resources) == (decode.name, decode.resources)


def test_a_child_killed_while_idle_is_replaced():
    stage = Supervised(stage=PassOn())
    stage.run(rows(2))
    os.kill(child_process._idle[-1]._process.pid, signal.SIGKILL)
    assert stage.run(rows(2)).batch.num_rows == 2


@dataclass(frozen=True, kw_only=True)
class Raising(PassOn):
    error: type[Exception] = ValueError

    def run(self, batch: pa.RecordBatch) -> StageResult:
        if batch.num_rows:
            os.write(1, b"into the answers?")
            raise self.error("from the child")
        return super().run(batch)


def test_a_child_whose_parent_ended_meanwhile_ends_without_a_word(capfd):
    child = StageChild()
    child._answers.close()
    child_process._send(child._requests, pickle.dumps((pickle.dumps(PassOn()), batch_to_bytes(rows(1)))))
    assert child._end() == "exit code 0"
    assert capfd.readouterr().err == ""


def test_what_the_stage_raises_is_raised_here():
    with pytest.raises(TypeError, match="from the child"):
        Supervised(stage=Raising(error=TypeError)).run(rows(1))
    result = run_isolating(Supervised(stage=Raising()), rows(2))
    assert [row.error_class for row in result.rejected] == ["ValueError", "ValueError"]


def test_each_thread_has_a_child_of_its_own():
    end_idle_children()
    stage = Supervised(stage=PassOn(seconds=0.2))
    threads = [threading.Thread(target=stage.run, args=[rows(2)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(child_process._idle) == 2

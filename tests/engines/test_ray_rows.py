import pyarrow as pa
from crashing_stages import FakeModel, PassOn

from pipelines.engines.ray_data.rows import REJECTION, busy_column, rejected_rows, run_aligned

FEED = PassOn(rejects="/2.jpg", batch_size=2)


def rows(num_rows: int) -> pa.Table:
    return pa.table(
        {
            "sample_id": pa.array([f"{row:04x}" for row in range(num_rows)], pa.string()),
            "uri": pa.array([f"/photos/{row}.jpg" for row in range(num_rows)], pa.string()),
            "_shard": pa.array(range(num_rows), pa.int32()),
        }
    )


def test_a_rejected_row_stays_in_its_place_with_its_reason_and_its_shard():
    fed = run_aligned([FEED], rows(5), carried=["_shard"])
    done = run_aligned([FakeModel(rejects="/4.jpg", batch_size=2)], fed, carried=["_shard"])
    assert done["uri"].to_pylist() == [f"/photos/{row}.jpg" for row in range(5)]
    assert done["_shard"].to_pylist() == list(range(5))
    assert done["tokens_0"].to_pylist() == [[0], [1], None, [3], None]
    reasons = list(zip(*(done[name].to_pylist() for name in REJECTION), strict=True))
    good = (None, None, None)
    assert reasons == [good, good, ("pass_on", "Bad", "bad"), good, ("fake_model", "Bad", "bad")]
    assert [row.uri for row in rejected_rows(done)] == ["/photos/2.jpg", "/photos/4.jpg"]


def test_a_stage_is_shown_good_rows_only_and_no_more_than_its_batch():
    seen = []

    class Watched(FakeModel):
        def run(self, batch):
            seen.append(batch["uri"].to_pylist())
            return super().run(batch)

    fed = run_aligned([FEED], rows(6), carried=["_shard"])
    run_aligned([Watched(batch_size=3)], fed, carried=["_shard"])
    assert seen == [["/photos/0.jpg", "/photos/1.jpg", "/photos/3.jpg"], ["/photos/4.jpg", "/photos/5.jpg"]]


def test_busy_seconds_add_up_however_the_rows_are_cut():
    fed = run_aligned([PassOn(seconds=0.05)], rows(4), carried=["_shard"])
    seconds = fed[busy_column("pass_on")].to_pylist()
    assert sum(seconds) >= 0.05
    assert len(set(seconds)) == 1
    done = run_aligned([FakeModel()], fed, carried=["_shard"])
    assert done[busy_column("pass_on")].to_pylist() == seconds


def test_no_rows_keep_the_columns():
    done = run_aligned([FakeModel()], run_aligned([FEED], rows(0), carried=["_shard"]), carried=["_shard"])
    assert done.num_rows == 0
    assert {"_shard", "tokens_0", "tokens_1", *REJECTION} <= set(done.schema.names)

"""The driver's side without Ray: blocks of rows are made here and handed over in any order."""

import random

import pyarrow as pa
import pytest
from crashing_stages import FakeModel, PassOn
from runs import claim_made_up, files_below

from pipelines.engines.ray_data.collector import Collector
from pipelines.engines.ray_data.rows import run_aligned
from pipelines.engines.ray_data.workers import MODEL_WORKER, NUM_PLANNED, RUN_COLUMNS, SHARD, feed, read_plan
from pipelines.errors import StorageFullError
from pipelines.runs.commit import ShardWriter
from pipelines.storage import LocalStorage

NUM_INPUTS, NUM_SHARDS = 40, 5


def blocks(claimed, size: int) -> list[pa.Table]:
    """Every row of the run, through both stages, in blocks of a size."""
    shards = pa.table({"shard": list(range(NUM_SHARDS))})
    planned = pa.concat_tables(read_plan(shards, plan=claimed.plan))
    done = []
    for start in range(0, planned.num_rows, size):
        fed = feed(planned.slice(start, size), stages=[PassOn(rejects="/3.jpg")])
        table = run_aligned([FakeModel()], fed, carried=RUN_COLUMNS)
        done.append(table.append_column(MODEL_WORKER, pa.array(["w"] * table.num_rows)))
    return done


def collect(folder, arrange, storage=None, told=None):
    storage = storage or LocalStorage(folder / "run")
    claimed = claim_made_up(storage, folder / "plan", num_inputs=NUM_INPUTS, num_shards=NUM_SHARDS)
    collector = Collector(
        plan=claimed.plan,
        writer=ShardWriter(storage=storage, config=claimed.config),
        on_progress=(told if told is not None else []).append,
        stage_names=("pass_on", "fake_model"),
    )
    with collector:
        for block in arrange(blocks(claimed, 7)):
            collector.take(block)
        collector.finish_commits()
    return collector, files_below(storage.root)


def shuffled(tables):
    return random.Random(3).sample(tables, len(tables))


@pytest.mark.parametrize(
    "arrange",
    [shuffled, lambda tables: [*tables, *tables], lambda tables: [table for table in tables for _ in range(2)]],
    ids=["in any order", "the whole stream twice", "each block twice"],
)
def test_the_order_of_blocks_and_their_repetition_change_nothing(tmp_path, arrange):
    _, expected = collect(tmp_path / "a", lambda tables: tables)
    told = []
    collector, files = collect(tmp_path / "b", arrange, told=told)
    assert files == expected
    assert sorted(part.shard for part in collector.parts) == list(range(NUM_SHARDS))
    assert told[-1].num_done == NUM_INPUTS
    assert told[-1].reasons == {"pass_on/Bad": 1}


def test_a_shard_without_all_its_rows_is_left_and_what_arrived_of_it_is_not_counted(tmp_path):
    collector, files = collect(tmp_path, lambda tables: tables[:-1])
    left = collector.left_of(list(range(NUM_SHARDS)))
    assert left
    assert {f"data/part-{shard:05d}.parquet" for shard in left}.isdisjoint(files)
    assert collector.num_done == sum(part.num_rows + part.num_quarantined for part in collector.parts)
    assert set(collector.reasons.elements()) <= {"pass_on/Bad"}


def test_a_full_disk_ends_the_run(tmp_path):
    class Full(LocalStorage):
        def create(self, path: str, data: bytes) -> bool:
            if path == "data/part-00002.parquet":
                raise StorageFullError("no room")
            return super().create(path, data)

    with pytest.raises(StorageFullError, match="no room"):
        collect(tmp_path, lambda tables: tables, storage=Full(tmp_path / "run"))


def test_an_empty_shard_is_one_marker_and_passes_the_feeding(tmp_path):
    storage = LocalStorage(tmp_path / "run")
    claimed = claim_made_up(storage, tmp_path / "plan", num_inputs=1, num_shards=3)
    planned = pa.concat_tables(read_plan(pa.table({"shard": [0, 1, 2]}), plan=claimed.plan))
    assert sorted(planned[NUM_PLANNED].to_pylist()) == [0, 0, 1]
    fed = feed(planned, stages=[PassOn()])
    assert sorted(fed[SHARD].to_pylist()) == [0, 1, 2]
    assert fed["sample_id"].null_count == 2

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import finished_run

from pipelines.errors import UsageError
from pipelines.runs.verify import verify_run
from pipelines.storage import LocalStorage


@pytest.fixture
def run(tmp_path) -> LocalStorage:
    return finished_run(tmp_path)


def problems(run: LocalStorage) -> str:
    return "\n".join(verify_run(run).problems)


def rewrite(run: LocalStorage, change) -> None:
    """Change the rows of shard 1 and write the file as ours would be."""
    path = run.root / "data" / "part-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def replaced(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    return table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))


def test_a_run_as_it_was_written_has_no_problem(run):
    report = verify_run(run)
    assert report.problems == ()
    assert (report.num_planned, report.num_ok, report.num_quarantined, report.num_shards) == (12, 9, 3, 3)


def test_a_changed_byte_is_found(run):
    path = run.root / "data" / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert "data/part-00001.parquet: expected sha256" in problems(run)


def test_a_file_cut_short_is_found(run):
    path = run.root / "data" / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert "data/part-00001.parquet: expected a whole Parquet file" in problems(run)


def test_a_missing_file_is_found_with_the_remedy(run):
    (run.root / "data" / "part-00002.parquet").unlink()
    assert "data/part-00002.parquet: missing; run the same `spae tokenize` again" in problems(run)


def test_a_missing_row_is_found_by_id(run):
    rewrite(run, lambda table: table.slice(1))
    assert "shard 1: expected each planned picture once, got 1 nowhere" in problems(run)


def test_a_row_twice_is_found_by_id(run):
    rewrite(run, lambda table: pa.concat_tables([table.slice(0, 1), table]))
    assert "shard 1: expected each planned picture once, got 1 more than once" in problems(run)


def test_a_row_that_nobody_planned_is_found(run):
    rewrite(run, lambda table: replaced(table, "sample_id", 0, "0" * 32))
    found = problems(run)
    assert "got 1 nowhere" in found
    assert f"got 1 not in the plan (first: {'0' * 32})" in found


@pytest.mark.parametrize("index", [-1, 10])
def test_a_code_index_outside_the_codebook_is_found(run, index):
    rewrite(run, lambda table: replaced(table, "tokens_0", 0, [index]))
    assert "expected code indices in [0, 10) in layer 0" in problems(run)


def test_a_layer_of_the_wrong_size_is_found(run):
    rewrite(run, lambda table: replaced(table, "tokens_1", 0, [1, 2, 3]))
    assert "expected 4 tokens a picture in layer 1, got [3]" in problems(run)


def test_a_missing_layer_is_found(run):
    rewrite(run, lambda table: table.drop_columns(["tokens_1"]))
    assert "data/part-00001.parquet: expected 2 layers" in problems(run)


def test_a_file_of_another_run_is_found(run):
    path = run.root / "data" / "part-00001.parquet"
    table = pq.read_table(path)
    footer = {**table.schema.metadata, b"spae.codebook_sha256": b"f" * 64}
    pq.write_table(table.replace_schema_metadata(footer), path)
    assert f"expected codebook_sha256 {'b' * 64} of the config, got {'f' * 64}" in problems(run)


def test_a_lost_quarantine_file_is_found(run):
    (run.root / "quarantine" / "part-00000.parquet").unlink()
    found = problems(run)
    assert "quarantine/part-00000.parquet: missing" in found
    assert "shard 0: expected each planned picture once, got 1 nowhere" in found


def test_a_foreign_file_among_the_data_is_found(run):
    (run.root / "data" / "part-00099.parquet").write_bytes(b"x")
    (run.root / "data" / "copy of part-00001.parquet").write_bytes(b"x")
    assert problems(run).count("not a file of this run") == 2


def test_an_unfinished_run_is_said_to_be_one(run):
    (run.root / "_SUCCESS").unlink()
    assert problems(run) == "_SUCCESS: the run is not finished; run the same `spae tokenize` again"


def test_a_manifest_with_other_counts_is_found(run):
    path = run.root / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["num_ok"], manifest["num_quarantined"] = 10, 2
    path.write_text(json.dumps(manifest))
    assert "expected planned, ok, quarantined (12, 9, 3) as found, got (12, 10, 2)" in problems(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"got no config\.json"):
        verify_run(LocalStorage(tmp_path))

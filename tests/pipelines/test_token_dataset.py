import shutil

import pyarrow.parquet as pq
import pytest
from runs import finished_run

from pipelines.errors import BadDataError, UsageError
from pipelines.token_dataset import open_token_dataset
from schemas.versions import SchemaError


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path).root


@pytest.mark.parametrize("location", ["", "/data", "/data/part-*.parquet"])
def test_a_run_its_data_and_a_glob_are_the_same_dataset(run, location):
    dataset = open_token_dataset(f"{run}{location}")
    assert (len(dataset.paths), dataset.num_rows, dataset.num_layers) == (3, 9, 2)
    ids = [i for batch in dataset.batches(["sample_id"], 2) for i in batch["sample_id"].to_pylist()]
    expected = [i for path in sorted(run.glob("data/*")) for i in pq.read_table(path)["sample_id"].to_pylist()]
    assert ids == expected


def test_one_file_and_a_url_can_be_read(run):
    assert len(open_token_dataset(str(run / "data" / "part-00001.parquet")).paths) == 1
    assert open_token_dataset(f"file://{run}").num_rows == 9


def test_files_of_different_codebooks_are_refused_together(run, tmp_path):
    path = run / "data" / "part-00001.parquet"
    table = pq.read_table(path)
    footer = {**table.schema.metadata, b"spae.codebook_sha256": b"f" * 64}
    pq.write_table(table.replace_schema_metadata(footer), path)
    with pytest.raises(BadDataError, match=f"codebook_sha256 {'b' * 64} of the files before it, got {'f' * 64}"):
        open_token_dataset(str(run))


@pytest.mark.parametrize("location", ["nowhere", "nowhere/*.parquet", "empty"])
def test_a_place_without_token_files_is_refused(tmp_path, location):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="expected a run or Parquet files of one"):
        open_token_dataset(str(tmp_path / location))


def test_parquet_of_others_and_no_parquet_are_refused(run, tmp_path):
    shutil.copy(run / "plan.parquet", tmp_path / "plan.parquet")
    with pytest.raises(SchemaError, match="expected tokens/1, got plan/2"):
        open_token_dataset(str(tmp_path / "plan.parquet"))
    (tmp_path / "text.parquet").write_text("no parquet at all")
    with pytest.raises(BadDataError, match="expected a Parquet file"):
        open_token_dataset(str(tmp_path / "text.parquet"))

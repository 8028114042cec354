"""Programs that know nothing of this project read the dataset: pyarrow, DuckDB, Hugging Face datasets."""

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from runs import finished_run


@pytest.fixture
def run(tmp_path):
    """12 inputs in 3 shards, 9 good and 3 quarantined; layers of 1 and 4 tokens; 10 words."""
    return finished_run(tmp_path).root


def test_pyarrow_reads_the_folder_and_a_coarse_layer_alone(run):
    table = pq.read_table(run / "data")
    assert table.num_rows == 9
    assert {len(tokens) for tokens in table["tokens_1"].to_pylist()} == {4}
    coarse = ds.dataset(run / "data").to_table(columns=["sample_id", "tokens_0"])
    assert coarse["tokens_0"].to_pylist() == table["tokens_0"].to_pylist()


def test_duckdb_counts_planned_good_and_quarantined_rows(run):
    counts = [
        duckdb.sql(f"select count(*) from read_parquet('{run}/{files}')").fetchall()[0][0]
        for files in ("plan*.parquet", "data/*.parquet", "quarantine/*.parquet")
    ]
    assert counts == [12, 9, 3]


def test_duckdb_turns_tokens_into_words_and_llm_ids(run):
    rows = duckdb.sql(
        f"""
        with tokens as (
            select sample_id, unnest(tokens_1) as code_index, generate_subscripts(tokens_1, 1) as cell
            from read_parquet('{run}/data/*.parquet')
        )
        select sample_id, list(text order by cell) as words, list(token_id order by cell) as token_ids
        from tokens join '{run}/codebook.parquet' using (code_index)
        group by sample_id
        """
    ).fetchall()
    tokens = {row["sample_id"]: row["tokens_1"] for row in pq.read_table(run / "data").to_pylist()}
    assert len(rows) == 9
    for sample_id, words, token_ids in rows:
        assert words == [f"word{index}" for index in tokens[sample_id]]
        assert token_ids == [100 + index for index in tokens[sample_id]]


def test_duckdb_reads_the_footer(run):
    rows = duckdb.sql(
        f"""
        select decode(value) from parquet_kv_metadata('{run}/data/part-00000.parquet')
        where decode(key) in ('spae.schema', 'spae.codebook_sha256') order by decode(key)
        """
    ).fetchall()
    assert rows == [("b" * 64,), ("tokens/1",)]


def test_duckdb_and_any_sha256_find_a_picture_by_its_uri(run):
    found = duckdb.sql(
        f"select count(*) from read_parquet('{run}/plan.parquet') where sample_id = sha256(uri)[:32]"
    ).fetchall()
    assert found == [(12,)]


def test_hugging_face_datasets_loads_the_files(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    dataset = datasets.load_dataset(
        "parquet",
        data_files=str(run / "data" / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(dataset) == 9
    table = pq.read_table(run / "data")
    assert dataset["tokens_1"][:] == table["tokens_1"].to_pylist()
    assert dataset.column_names == table.schema.names

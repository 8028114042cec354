import pytest
from runs import claim_made_up, draft_plan, files_below, finished_run, run_config, token_rows

from pipelines.errors import UsageError
from pipelines.runs.claim import claim_run, read_config
from pipelines.runs.commit import ShardWriter
from pipelines.storage import LocalStorage
from schemas.codebook_table import codebook_table
from schemas.versions import SchemaError

CODEBOOK = codebook_table(words=["cat"], token_ids=[1], codebook_sha256="b" * 64, source="made up")


@pytest.fixture
def storage(tmp_path) -> LocalStorage:
    return LocalStorage(tmp_path / "run")


def commit(storage, run, shard) -> None:
    ids = run.plan.read_shard(shard)["sample_id"].to_pylist()
    writer = ShardWriter(storage=storage, config=run.config)
    writer.commit(shard, sample_ids=ids, batches=[token_rows(ids)], rejected=[])


def test_a_new_run_has_config_plan_and_codebook_and_everything_missing(tmp_path, storage):
    run = claim_made_up(storage, tmp_path / "plan")
    assert run.missing == [0, 1, 2]
    assert [name for name in storage.names() if not name.startswith(".")] == [
        *("codebook.parquet", "config.json", "plan.parquet")
    ]
    assert read_config(storage) == run.config


def test_the_same_command_again_misses_only_what_is_not_committed(tmp_path, storage):
    commit(storage, claim_made_up(storage, tmp_path / "plan"), 1)
    assert claim_made_up(storage, tmp_path / "plan2").missing == [0, 2]


def test_a_process_killed_between_claim_and_plan_is_simply_repeated(tmp_path, storage):
    claim_made_up(storage, tmp_path / "plan")
    plan = (storage.root / "plan.parquet").read_bytes()
    (storage.root / "plan.parquet").unlink()
    (storage.root / "codebook.parquet").unlink()
    claim_made_up(storage, tmp_path / "plan2")
    assert (storage.root / "plan.parquet").read_bytes() == plan
    assert storage.exists("codebook.parquet")


def test_other_settings_are_refused_with_each_difference_and_nothing_changes(tmp_path, storage):
    claim_made_up(storage, tmp_path / "plan")
    before = files_below(storage.root)
    with pytest.raises(UsageError, match=r"got others:\n  batch_size: 4 there, 8 now\nUse a new --out"):
        claim_made_up(storage, tmp_path / "plan2", batch_size=8)
    assert files_below(storage.root) == before


def test_other_inputs_are_refused_with_how_many_were_added_removed_and_changed(tmp_path, storage):
    claim_made_up(storage, tmp_path / "plan")
    larger = draft_plan(tmp_path / "larger", 15)
    with pytest.raises(UsageError, match=r"inputs: 12 there, 15 now \(3 added, 0 removed, 0 changed\)"):
        claim_run(storage, run_config(larger), larger, CODEBOOK)
    touched = draft_plan(tmp_path / "touched", 11, size_bytes=8)
    with pytest.raises(UsageError, match=r"inputs: 12 there, 11 now \(0 added, 1 removed, 11 changed\)"):
        claim_run(storage, run_config(touched), touched, CODEBOOK)


def test_another_number_of_shards_is_refused_as_such(tmp_path, storage):
    claim_made_up(storage, tmp_path / "plan")
    other = draft_plan(tmp_path / "other", num_shards=4)
    with pytest.raises(UsageError, match=r"same ones dealt to other shards\n  num_shards: 3 there, 4 now"):
        claim_run(storage, run_config(other), other, CODEBOOK)


def test_other_versions_are_refused_only_while_something_is_missing(tmp_path, storage):
    claim_made_up(storage, tmp_path / "plan")
    with pytest.raises(UsageError, match=r"torch: 1\.0 there, 2\.0 now"):
        claim_made_up(storage, tmp_path / "plan2", torch_version="2.0")
    finished = finished_run(tmp_path / "finished")
    assert claim_made_up(finished, tmp_path / "plan3", torch_version="2.0").missing == []


def test_a_model_folder_is_not_taken_for_a_run(tmp_path, storage):
    storage.create("config.json", b'{"name": "tiny", "files": {}}')
    with pytest.raises(SchemaError, match="expected run-config/1, got none"):
        claim_made_up(storage, tmp_path / "plan")


def test_data_of_somebody_else_is_not_added_to(tmp_path, storage):
    storage.create("data/theirs.parquet", b"x")
    with pytest.raises(UsageError, match="got 1 files in data/ without a config"):
        claim_made_up(storage, tmp_path / "plan")
    assert storage.names() == []


def test_a_place_without_a_run_is_refused(storage):
    with pytest.raises(UsageError, match="expected a folder written by `spae tokenize`"):
        read_config(storage)

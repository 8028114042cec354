import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import draft_plan, entries

from pipelines.errors import BadDataError, UsageError
from pipelines.readers import InputEntry
from pipelines.runs.plan import Plan
from pipelines.runs.plan_building import build_plan, default_num_shards
from pipelines.storage import LocalStorage
from schemas.plan import PLAN_SCHEMA, sample_id_of, shard_of


def published(folder: Path, draft) -> Plan:
    storage = LocalStorage(folder)
    draft.publish(storage)
    return Plan.open(storage, draft.summary.num_shards)


def test_the_order_of_the_listing_changes_nothing(tmp_path):
    listing = entries(50)
    shuffled = random.Random(0).sample(listing, len(listing))
    plans = []
    for name, some in (("a", listing), ("b", shuffled)):
        (tmp_path / name).mkdir()
        draft = build_plan(some, folder=tmp_path / name, num_shards=4)
        plans.append((draft.summary, (tmp_path / name / "plan.parquet").read_bytes()))
    assert plans[0] == plans[1]


def test_each_row_is_in_the_shard_its_id_says_sorted_by_id(tmp_path):
    plan = published(tmp_path / "run", draft_plan(tmp_path / "plan", 50, num_shards=4))
    uris = []
    for shard in range(4):
        table = plan.read_shard(shard)
        assert table.schema.equals(PLAN_SCHEMA)
        ids = table["sample_id"].to_pylist()
        assert ids == sorted(ids)
        assert ids == [sample_id_of(uri) for uri in table["uri"].to_pylist()]
        assert all(shard_of(sample_id, 4) == shard for sample_id in ids)
        uris += table["uri"].to_pylist()
    assert sorted(uris) == sorted(entry.uri for entry in entries(50))


def test_a_large_plan_is_split_into_files_by_shard_and_reads_the_same(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one = build_plan(entries(100), folder=tmp_path / "one", num_shards=10)
    many = build_plan(entries(100), folder=tmp_path / "many", num_shards=10, rows_per_file=30)
    assert one.file_names == ("plan.parquet",)
    assert many.file_names == (
        *("plan-000000-000002.parquet", "plan-000003-000005.parquet"),
        *("plan-000006-000008.parquet", "plan-000009-000009.parquet"),
    )
    assert many.summary == one.summary
    whole, split = published(tmp_path / "run1", one), published(tmp_path / "run2", many)
    for shard in range(10):
        assert split.read_shard(shard).equals(whole.read_shard(shard))


def test_an_input_named_twice_is_planned_once(tmp_path):
    draft = build_plan(entries(5) + entries(3), folder=tmp_path, num_shards=2)
    assert (draft.summary.num_inputs, draft.summary.num_doubles) == (5, 3)


@pytest.mark.parametrize("change", [{"size_bytes": 8}, {"etag_or_mtime": "later"}, {"uri": "/photos/other.jpg"}])
def test_the_hash_changes_with_any_input(tmp_path, change):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, *rest = entries(5)
    fields = {
        "uri": first.uri,
        "size_bytes": first.size_bytes,
        "etag_or_mtime": first.etag_or_mtime,
        **change,
    }
    a = build_plan([first, *rest], folder=tmp_path / "a", num_shards=2)
    b = build_plan([InputEntry(**fields), *rest], folder=tmp_path / "b", num_shards=2)
    assert a.summary.sha256 != b.summary.sha256


def test_no_input_is_refused(tmp_path):
    with pytest.raises(UsageError, match="expected at least one picture, got none"):
        build_plan([], folder=tmp_path)


@pytest.mark.parametrize(
    ("num_inputs", "num_shards"),
    [(1, 1), (63, 1), (64, 2), (256, 8), (785, 8), (32_768, 8), (32_769, 9), (1_281_167, 313)],
)
def test_the_number_of_shards_follows_from_the_number_of_inputs(num_inputs, num_shards):
    assert default_num_shards(num_inputs) == num_shards


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_whatever_the_names_every_input_is_in_exactly_one_shard(tmp_path_factory, uris, num_shards, rows_per_file):
    folder = tmp_path_factory.mktemp("plan")
    listing = [InputEntry(uri=uri, size_bytes=None, etag_or_mtime=None) for uri in uris]
    draft = build_plan(listing, folder=folder, num_shards=num_shards, rows_per_file=rows_per_file)
    plan = published(tmp_path_factory.mktemp("run"), draft)
    found = [uri for shard in range(num_shards) for uri in plan.read_shard(shard)["uri"].to_pylist()]
    assert sorted(found) == sorted(set(uris))


def test_a_plan_with_a_file_missing_is_refused(tmp_path):
    (tmp_path / "plan").mkdir()
    draft = build_plan(entries(100), folder=tmp_path / "plan", num_shards=10, rows_per_file=30)
    published(tmp_path / "run", draft)
    (tmp_path / "run" / "plan-000003-000005.parquet").unlink()
    with pytest.raises(BadDataError, match="hold shards 0 to 9 once each"):
        Plan.open(LocalStorage(tmp_path / "run"), 10)


def test_a_shard_outside_the_plan_is_refused(tmp_path):
    plan = published(tmp_path / "run", draft_plan(tmp_path / "plan", num_shards=3))
    with pytest.raises(IndexError, match="expected 0 to 2, got 3"):
        plan.read_shard(3)


def test_a_damaged_plan_is_bad_data_and_a_place_out_of_reach_is_not(tmp_path, monkeypatch):
    plan = published(tmp_path / "run", draft_plan(tmp_path / "draft", 12))

    def refuse(self: LocalStorage, path: str) -> None:
        raise OSError("ClientConnectorError: Cannot connect to host")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "open", refuse)
        with pytest.raises(OSError, match="Cannot connect"):
            plan.read_shard(0)
    (name,) = plan.file_names
    whole = bytearray((tmp_path / "run" / name).read_bytes())
    whole[60] ^= 0xFF
    (tmp_path / "run" / name).write_bytes(whole)
    with pytest.raises(BadDataError, match="expected to read it whole"):
        plan.read_shard(0)

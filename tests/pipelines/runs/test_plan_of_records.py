import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UsageError
from pipelines.readers import InputEntry, Record
from pipelines.runs.listing_spill import ListingSpill
from pipelines.runs.plan import DraftPlan, Plan
from pipelines.runs.plan_building import build_plan
from pipelines.storage import LocalStorage


def records(num_records: int, *, group: int = 4, **changes: object) -> list[InputEntry]:
    """Rows of a table, each `group` of them to be read together."""
    return [
        InputEntry(
            uri=f"/a.parquet#row={number}",
            size_bytes=None,
            etag_or_mtime="m",
            record=Record(container="/a.parquet", row_group=number // group, row=number % group, column="image"),
            shard_key=f"/a.parquet#row_group={number // group}",
            **{"kept": {"label": number}, **changes},
        )
        for number in range(num_records)
    ]


def draft(folder, entries, **options: object) -> DraftPlan:
    folder.mkdir(parents=True)
    return build_plan(entries, folder=folder, **options)


def published(folder, plan: DraftPlan) -> Plan:
    plan.publish(LocalStorage(folder))
    return Plan.open(LocalStorage(folder), plan.summary.num_shards)


def test_what_is_read_together_is_in_one_shard_and_comes_in_reading_order(tmp_path):
    plan = published(tmp_path / "run", draft(tmp_path / "plan", records(40), num_shards=3))
    shards_of_group: dict[int, set[int]] = {}
    for shard in range(3):
        rows = plan.rows_to_read(shard).to_pylist()
        places = [(row["record"]["row_group"], row["record"]["row"]) for row in rows]
        assert places == sorted(places)
        for group, _ in places:
            shards_of_group.setdefault(group, set()).add(shard)
        ids = plan.read_shard(shard)["sample_id"].to_pylist()
        assert ids == sorted(ids)
    assert len(shards_of_group) == 10
    assert {len(shards) for shards in shards_of_group.values()} == {1}


def test_kept_columns_have_one_type_over_all_inputs_and_null_where_one_lacks_them(tmp_path):
    entries = [
        *records(3, kept={"label": pa.scalar(1, pa.int16()), "note": None}),
        InputEntry(uri="/b.jpg", size_bytes=1, etag_or_mtime="m"),
        InputEntry(uri="/c.jpg", size_bytes=1, etag_or_mtime="m", kept={"label": 2.5, "note": None}),
    ]
    plan = published(tmp_path / "run", draft(tmp_path / "plan", entries, num_shards=1))
    assert plan.kept_fields() == (pa.field("label", pa.float64()), pa.field("note", pa.string()))
    kept = {row["uri"]: row["kept"]["label"] for row in plan.rows_to_read(0).to_pylist()}
    assert (kept["/a.parquet#row=0"], kept["/b.jpg"], kept["/c.jpg"]) == (1.0, None, 2.5)


@pytest.mark.parametrize(
    "values",
    [(1, "one"), (pa.scalar(1), "one"), (True, 1), ({}, {}), (2**70, 1)],
    ids=["number and text", "column and text", "truth and number", "nothing", "too large"],
)
def test_values_of_several_types_are_refused(tmp_path, values):
    entries = [
        InputEntry(uri=f"/{number}.jpg", size_bytes=1, etag_or_mtime="m", kept={"label": value})
        for number, value in enumerate(values)
    ]
    with pytest.raises(UsageError, match="kept column 'label': expected values"):
        ListingSpill(entries, tmp_path)


def test_types_are_brought_together_over_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.runs.listing_spill._CHUNK_ROWS", 2)
    values = [None, None, 1, 2, 2.5, None, None]
    entries = [
        InputEntry(uri=f"/{number}.jpg", size_bytes=1, etag_or_mtime="m", kept={} if value is None else {"x": value})
        for number, value in enumerate(values)
    ]
    spill = ListingSpill(entries, tmp_path)
    assert spill.kept_fields == (pa.field("x", pa.float64()),)
    assert [row["kept"]["x"] for batch in spill.batches() for row in batch.to_pylist()] == values


def test_the_hash_of_a_plan_covers_records_kept_values_and_their_types(tmp_path):
    def moved(entry: InputEntry) -> InputEntry:
        return dataclasses.replace(entry, record=dataclasses.replace(entry.record, row=99))

    base = records(6)
    variants = {
        "same": base,
        "another value": [*base[:-1], dataclasses.replace(base[-1], kept={"label": 7})],
        "another type": records(6, kept={"label": 1.0}),
        "none kept": records(6, kept={}),
        "another place": [*base[:-1], moved(base[-1])],
    }
    hashes = {name: draft(tmp_path / name, entries, num_shards=2).summary.sha256 for name, entries in variants.items()}
    again = draft(tmp_path / "again", records(6), num_shards=2, rows_per_file=2).summary.sha256
    assert again == hashes["same"]
    assert len(set(hashes.values())) == len(variants)


def test_of_a_picture_that_is_named_twice_the_first_mention_is_kept(tmp_path):
    entries = [
        InputEntry(uri="/a.jpg", size_bytes=1, etag_or_mtime="m", kept={"caption": text}) for text in ("one", "two")
    ]
    plan = draft(tmp_path / "plan", entries, num_shards=1)
    (table,) = plan.rows()
    assert table["kept"].to_pylist() == [{"caption": "one"}]
    assert plan.summary.num_doubles == 1


def test_a_plan_of_plain_files_has_hardly_grown(tmp_path):
    entries = [InputEntry(uri=f"/photos/{n:06d}.jpg", size_bytes=n, etag_or_mtime=str(n)) for n in range(20_000)]
    plan = draft(tmp_path / "plan", entries, num_shards=1)
    (name,) = plan.file_names
    (table,) = plan.rows()
    assert table["record"].null_count == 20_000
    metadata = pq.ParquetFile(tmp_path / "plan" / name).metadata
    columns = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
    of_records = sum(c.total_compressed_size for c in columns if c.path_in_schema.startswith("record."))
    assert of_records < 0.01 * sum(c.total_compressed_size for c in columns)

import io
import pickle

import duckdb
import pyarrow.parquet as pq
import pytest
from runs import claim_made_up, files_below, rejected_row, token_rows

from pipelines.errors import BadDataError
from pipelines.runs.commit import ShardWriter
from pipelines.storage import LocalStorage
from schemas.tokens import TokensMetadata


@pytest.fixture
def writer(tmp_path) -> ShardWriter:
    storage = LocalStorage(tmp_path / "run")
    return ShardWriter(storage=storage, config=claim_made_up(storage, tmp_path / "plan").config)


IDS = [f"{number:032x}" for number in (5, 2, 9, 7)]


def test_the_bytes_depend_on_the_rows_alone_not_on_batches_or_order(tmp_path, writer):
    other = ShardWriter(storage=LocalStorage(tmp_path / "other"), config=writer.config)
    writer.commit(0, sample_ids=IDS, batches=[token_rows(IDS)], rejected=[])
    other.commit(0, sample_ids=sorted(IDS), batches=[token_rows([i]) for i in reversed(IDS)], rejected=[])
    path = "data/part-00000.parquet"
    assert writer.storage.read_bytes(path) == other.storage.read_bytes(path)


def test_rows_are_sorted_and_the_footer_counts_them(writer):
    entry = writer.commit(1, sample_ids=IDS, batches=[token_rows(IDS[:3])], rejected=[rejected_row(IDS[3])])
    table = pq.read_table(writer.storage.url("data/part-00001.parquet"))
    assert table["sample_id"].to_pylist() == sorted(IDS[:3])
    metadata = TokensMetadata.from_footer(table.schema.metadata, where="here")
    assert (metadata.shard, metadata.num_planned, metadata.num_ok, metadata.num_quarantined) == (1, 4, 3, 1)
    assert (entry.num_rows, entry.num_quarantined) == (3, 1)
    assert entry == writer.entry(1)


def test_a_zombie_that_commits_later_changes_nothing(writer):
    first = writer.commit(0, sample_ids=IDS, batches=[token_rows(IDS)], rejected=[])
    before = files_below(writer.storage.root)
    second = writer.commit(0, sample_ids=IDS, batches=[token_rows(IDS[1:])], rejected=[rejected_row(IDS[0])])
    assert second == first
    assert files_below(writer.storage.root) == before


@pytest.mark.parametrize(
    ("good", "rejected"), [(IDS[:3], []), (IDS, IDS[:1]), ([*IDS, IDS[0]], []), ([*IDS[:3], "f" * 32], [])]
)
def test_missing_doubled_or_foreign_rows_are_never_committed(writer, good, rejected):
    with pytest.raises(BadDataError, match="expected each of 4 planned ids once"):
        writer.commit(0, sample_ids=IDS, batches=[token_rows(good)], rejected=[rejected_row(i) for i in rejected])
    assert writer.storage.names("data") == []


def test_the_quarantine_is_written_before_the_commit(writer):
    (writer.storage.root / "data").write_text("a file where the folder should be: the commit must fail")
    with pytest.raises(OSError, match="data"):
        writer.commit(0, sample_ids=IDS, batches=[token_rows(IDS[1:])], rejected=[rejected_row(IDS[0])])
    rows = pq.read_table(writer.storage.url("quarantine/part-00000.parquet")).to_pylist()
    assert [row["sample_id"] for row in rows] == [IDS[0]]
    assert rows[0]["attempt"] == 1


def test_memory_addresses_do_not_get_into_the_quarantine(writer):
    row = rejected_row(IDS[0], message="cannot read <_io.BytesIO object at 0x7f3a5c0e1d50>")
    writer.commit(0, sample_ids=IDS[:1], batches=[], rejected=[row])
    rows = pq.read_table(writer.storage.url("quarantine/part-00000.parquet")).to_pylist()
    assert rows[0]["message"] == "cannot read <_io.BytesIO object>"


def test_a_shard_without_good_rows_is_a_file_without_rows(writer):
    entry = writer.commit(0, sample_ids=[], batches=[], rejected=[])
    assert entry.num_rows == 0
    assert pq.read_table(writer.storage.url("data/part-00000.parquet")).num_rows == 0


def test_files_have_zstd_page_index_and_page_checksums(writer):
    writer.commit(0, sample_ids=IDS, batches=[token_rows(IDS)], rejected=[])
    path = writer.storage.url("data/part-00000.parquet")
    column = pq.read_metadata(path).row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert column.has_column_index
    assert column.has_offset_index
    data = bytearray(writer.storage.read_bytes("data/part-00000.parquet"))
    data[column.data_page_offset + 60] ^= 0xFF
    with pytest.raises(OSError, match=r"CRC|corrupt|crc"):
        pq.ParquetFile(io.BytesIO(bytes(data)), page_checksum_verification=True).read()
    assert duckdb.sql(f"select count(*) from '{path}'").fetchall() == [(4,)]


def test_a_writer_and_its_plan_travel_to_a_worker_as_pickles(tmp_path, writer):
    plan = claim_made_up(writer.storage, tmp_path / "again").plan
    writer, plan = pickle.loads(pickle.dumps((writer, plan)))
    ids = plan.read_shard(2)["sample_id"].to_pylist()
    assert writer.commit(2, sample_ids=ids, batches=[token_rows(ids)], rejected=[]).num_rows == len(ids)

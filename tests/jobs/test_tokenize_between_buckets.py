import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from containers import write_every_kind
from runs import files_below, write_pictures

from jobs.cli import main

pytestmark = pytest.mark.engine

NUM_PICTURES = 2


def tokens_by_content(table: pa.Table) -> set[tuple[object, ...]]:
    names = ["content_sha256", *(name for name in table.schema.names if name.startswith("tokens_"))]
    return {tuple(map(str, row.values())) for row in table.select(names).to_pylist()}


def test_from_bucket_to_bucket_gives_the_bytes_of_a_local_run(bucket, tiny_model_dir, tmp_path):
    filesystem, root = fsspec.core.url_to_fs(bucket)
    photos = write_pictures(tmp_path / "photos", NUM_PICTURES)
    kinds = write_every_kind(photos, lambda path, content: filesystem.pipe_file(f"{root}/{path}", content))
    inputs = [f"{bucket}/{place}" for place in kinds.values()]
    common = ["--model", str(tiny_model_dir), "--num-shards", "2", "--num-threads", "2", "--batch-size", "4"]
    assert main(["tokenize", *inputs, "--out", f"{bucket}/run", *common]) == 0
    assert main(["tokenize", *inputs, "--out", str(tmp_path / "run"), *common]) == 0
    filesystem.get(f"{root}/run", str(tmp_path / "fetched"), recursive=True)
    fetched, local = files_below(tmp_path / "fetched"), files_below(tmp_path / "run")
    for different in ("manifest.json", "config.json"):  # times, and the place itself
        del fetched[different], local[different]
    assert fetched == local
    table = pq.read_table(tmp_path / "fetched" / "data")
    # Four corpora in containers and two of files; globs and lists name these again.
    assert table.num_rows == (4 + 2) * NUM_PICTURES
    assert len(tokens_by_content(table)) == NUM_PICTURES
    assert main(["verify", f"{bucket}/run"]) == 0
    # Resumed with the same bytes: a shard that is gone is made again, nothing else is touched.
    filesystem.rm_file(f"{root}/run/data/part-00001.parquet")
    filesystem.rm_file(f"{root}/run/_SUCCESS")
    assert main(["tokenize", *inputs, "--out", f"{bucket}/run", *common]) == 0
    assert filesystem.cat(f"{root}/run/data/part-00001.parquet") == local["data/part-00001.parquet"]


def test_a_truncated_object_is_quarantined_and_no_short_success(bucket, tiny_model_dir, tmp_path):
    filesystem, root = fsspec.core.url_to_fs(bucket)
    photos = write_pictures(tmp_path / "photos", NUM_PICTURES)
    write_every_kind(photos, lambda path, content: filesystem.pipe_file(f"{root}/{path}", content))
    for place in ("wds/000.tar", "packed/all.tar.gz", "tables/bytes.parquet"):
        content = filesystem.cat(f"{root}/{place}").rstrip(b"\0")  # a tar ends in zeros, which nobody would miss
        filesystem.pipe_file(f"{root}/{place}", content[: len(content) // 2])
    inputs = [f"{bucket}/{place}" for place in ("wds", "packed/all.tar.gz", "tables/bytes.parquet", "photos")]
    assert main(["tokenize", *inputs, "--out", str(tmp_path / "run"), "--model", str(tiny_model_dir)]) == 1
    quarantine = pq.read_table(tmp_path / "run" / "quarantine").to_pylist()
    assert {row["uri"] for row in quarantine if row["uri"].endswith("#damaged")} == {
        f"{bucket}/{place}#damaged" for place in ("wds/000.tar", "packed/all.tar.gz", "tables/bytes.parquet")
    }
    assert {row["error_class"] for row in quarantine} == {"DamagedContainer"}

import pickle
import uuid

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines.stages.read_inputs import ReadInputs


def batch(*uris: object, sizes: list[int | None] | None = None, **columns: list[object]) -> pa.RecordBatch:
    rows = {
        "sample_id": pa.array([f"id{number}" for number in range(len(uris))], pa.string()),
        "uri": pa.array([str(uri) for uri in uris], pa.string()),
        "size_bytes": pa.array(sizes or [None] * len(uris), pa.int64()),
    }
    return pa.record_batch({**rows, **columns})


def test_local_and_remote_files_are_read_whole(tmp_path):
    (tmp_path / "a b.jpg").write_bytes(b"local")
    url = f"memory://{uuid.uuid4().hex}/b.jpg"
    fsspec.filesystem("memory").pipe_file(url, b"remote")
    result = ReadInputs().run(batch(tmp_path / "a b.jpg", url, sizes=[5, None], label=["x", "y"]))
    assert result.batch.schema.names == ["sample_id", "uri", "bytes", "label"]
    assert result.batch["bytes"].to_pylist() == [b"local", b"remote"]
    assert result.batch["label"].to_pylist() == ["x", "y"]
    assert result.rejected == ()


def test_a_file_that_is_gone_is_rejected_and_its_neighbour_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"here")
    result = ReadInputs().run(batch(tmp_path / "gone.jpg", tmp_path / "a.jpg"))
    assert result.batch["bytes"].to_pylist() == [b"here"]
    (row,) = result.rejected
    assert (row.sample_id, row.stage, row.error_class) == ("id0", "read_inputs", "FileNotFoundError")
    assert "gone.jpg" in row.message


def test_a_remote_file_that_is_gone_is_rejected():
    result = ReadInputs().run(batch(f"memory://{uuid.uuid4().hex}/gone.jpg"))
    assert [row.error_class for row in result.rejected] == ["FileNotFoundError"]


def test_a_file_that_changed_since_it_was_planned_is_rejected(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"longer than planned")
    (row,) = ReadInputs().run(batch(tmp_path / "a.jpg", sizes=[3])).rejected
    assert row.error_class == "ChangedSincePlanned"
    assert "expected 3 bytes as planned, got 19" in row.message


def test_a_file_that_is_too_large_is_rejected_unread(tmp_path):
    (row,) = ReadInputs(max_size_bytes=10).run(batch(tmp_path / "never-opened.jpg", sizes=[11])).rejected
    assert row.error_class == "FileTooLarge"


def test_storage_that_fails_in_passing_is_asked_again(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"here")
    failures = [OSError(5, "Input/output error"), TimeoutError("slow")]
    really_open = open

    def flaky(*arguments: object, **options: object) -> object:
        if failures and str(arguments[0]).endswith("a.jpg"):
            raise failures.pop(0)
        return really_open(*arguments, **options)

    monkeypatch.setattr("builtins.open", flaky)
    result = ReadInputs(retry_seconds=0.0).run(batch(tmp_path / "a.jpg"))
    assert result.batch["bytes"].to_pylist() == [b"here"]
    failures += [OSError(5, "Input/output error")] * 3
    (row,) = ReadInputs(retry_seconds=0.0).run(batch(tmp_path / "a.jpg")).rejected
    assert (row.error_class, failures) == ("OSError", [])


class BrokenStore(MemoryFileSystem):
    """Fails the way cloud drivers do: with an error of its own kind."""

    protocol = "broken"
    cachable = False

    class HttpError(Exception):
        pass

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        raise self.HttpError("503 slow down")


def test_errors_of_a_cloud_driver_reject_the_row_and_not_the_run(tmp_path):
    fsspec.register_implementation("broken", BrokenStore, clobber=True)
    (tmp_path / "a.jpg").write_bytes(b"here")
    result = ReadInputs(retry_seconds=0.0).run(batch("broken://bucket/a.jpg", tmp_path / "a.jpg"))
    assert result.batch["bytes"].to_pylist() == [b"here"]
    assert [row.message for row in result.rejected] == ["HttpError: 503 slow down"]


def test_an_empty_batch_stays_one():
    assert ReadInputs().run(batch()).batch.num_rows == 0


def test_it_pickles_without_its_open_connections():
    stage = ReadInputs()
    url = f"memory://{uuid.uuid4().hex}/b.jpg"
    fsspec.filesystem("memory").pipe_file(url, b"remote")
    stage.run(batch(url))
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_a_batch_without_sizes_is_a_fault_of_the_program():
    with pytest.raises(TypeError, match="'size_bytes' of stage read_inputs"):
        ReadInputs().run(batch("/a.jpg").drop_columns(["size_bytes"]))

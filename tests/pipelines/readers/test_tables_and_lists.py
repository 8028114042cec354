import gzip
import io
import json
import uuid

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from containers import bytes_parquet, hugging_face_parquet
from PIL import Image

from pipelines.errors import UsageError
from pipelines.readers import InputEntry, ListingNotes, ReadOptions, list_inputs, open_inputs

PICTURES = {f"{number}.png": bytes([65 + number]) * 50 for number in range(20)}


def listed(*inputs: object, keep: tuple[str, ...] = (), column: str | None = None) -> list[InputEntry]:
    readers = open_inputs(map(str, inputs), ReadOptions(image_column=column, keep_columns=keep))
    return list(list_inputs(readers, ListingNotes(), keep_columns=keep))


def problems(entries: list[InputEntry]) -> dict[str, str]:
    """Last part of the uri -> problem, of those that have one."""
    return {e.uri.rpartition("#")[2]: e.record.problem for e in entries if e.record and e.record.problem}


def test_rows_of_a_table_are_planned_by_row_group_without_reading_a_picture(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(bytes_parquet(PICTURES, row_group_size=8))
    entries = listed(path)
    assert [entry.uri for entry in entries] == [f"{path}#row={number}" for number in range(20)]
    assert [(e.record.row_group, e.record.row) for e in entries] == [(n // 8, n % 8) for n in range(20)]
    assert {e.record.column for e in entries} == {"image"}
    assert len({e.shard_key for e in entries}) == 3  # rows that are decoded together stay together


def test_what_hugging_face_datasets_writes_is_understood(tmp_path):
    images = [Image.new("RGB", (4, 4), (number, 0, 0)) for number in range(3)]
    dataset = datasets.Dataset.from_dict(
        {"image": images, "label": [0, 1, 0]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}),
    )
    dataset.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    entries = listed(tmp_path, keep=("label",))
    assert [entry.record.column for entry in entries] == ["image.bytes"] * 3
    assert [entry.kept["label"].as_py() for entry in entries] == [0, 1, 0]


def two_columns_of_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"before": [b"1"], "after": [b"2"], "note": ["x"]}), sink)
    return sink.getvalue()


def test_several_columns_of_bytes_need_a_choice(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(two_columns_of_bytes())
    with pytest.raises(UsageError, match=r"got before, after\. Name the right one with --image-column"):
        listed(path)
    assert [e.record.column for e in listed(path, column="after")] == ["after"]
    with pytest.raises(UsageError, match=r"expected a column 'nosuch', got note"):
        listed(path, column="nosuch")
    with pytest.raises(UsageError, match=r"got the pictures of .*a\.parquet"):
        listed(path, column="after", keep=("after",))


def test_a_table_without_pictures_is_refused_by_name_and_passed_over_in_a_folder(tmp_path):
    pq.write_table(pa.table({"age": [1]}), tmp_path / "people.parquet")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"expected a column named one of uri, .* got none"):
        listed(tmp_path / "people.parquet")
    notes = ListingNotes()
    found = [entry.uri for entry in list_inputs(open_inputs([str(tmp_path)]), notes)]
    assert found == [str(tmp_path / "a.png")]
    assert "people.parquet" in notes.problems[0]


def test_a_table_cut_off_anywhere_says_so(tmp_path):
    whole = hugging_face_parquet(PICTURES)
    path = tmp_path / "a.parquet"
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        assert "expected a whole Parquet file" in problems(listed(path))["damaged"]


def test_places_in_a_list_are_relative_to_the_list(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.png").write_bytes(b"12345")
    rows = [{"url": "gs://bucket/a.png"}, {"url": "../b.png"}, {"url": str(tmp_path / "b.png")}, {"url": "c.png"}]
    (tmp_path / "deep" / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entries = listed(tmp_path / "deep" / "list.jsonl")
    assert [entry.uri for entry in entries] == [
        *("gs://bucket/a.png", str(tmp_path / "b.png"), str(tmp_path / "b.png"), str(tmp_path / "deep" / "c.png"))
    ]
    assert [entry.size_bytes for entry in entries] == [None, 5, 5, None]


def test_a_list_in_a_bucket_names_its_neighbours():

    root = f"memory:///{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(f"{root}/lists/a.csv", b"file_name\n../photos/a.png\n")
    assert [entry.uri for entry in listed(f"{root}/lists/a.csv")] == [f"{root}/photos/a.png"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_fields_of_csv_are_text_and_empty_ones_are_null(tmp_path, name):
    tab = name.endswith(".tsv")
    text = '\ufefffile,caption,label\na.png,"two, three\nlines",007\nb.png,,1\n'
    content = (text.replace(",", "\t") if tab else text).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    entries = listed(tmp_path / name, keep=("caption", "label"))
    assert [entry.kept["label"] for entry in entries] == ["007", "1"]
    assert [bool(entry.kept["caption"]) for entry in entries] == [True, False]
    assert entries[1].kept["caption"] is None


def test_lines_that_cannot_be_read_are_planned_one_by_one_with_their_reason(tmp_path):
    lines = ['{"path": "a.png"}', "", "{broken", '["a"]', '{"path": ""}', '{"other": 1}', '{"path": "b.png"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    entries = listed(tmp_path / "a.jsonl")
    assert len(entries) == 6
    found = problems(entries)
    assert list(found) == ["line=3", "line=4", "line=5", "line=6"]
    assert "no JSON" in found["line=3"]
    assert "list instead of an object" in found["line=4"]
    assert "nothing in the column 'path'" in found["line=6"]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", b"path,label\na.png,1\nb.png\n", "line=3"),
        ("a.csv", b'path,label\na.png,1\nb.png,"cut', "line=3"),
        ("a.csv", b"path,label\na.png,\xff\n", "line=1"),
        ("a.jsonl", b'{"path": "a.png"}\n{"path": "b.p', "line=2"),
        ("a.jsonl.gz", gzip.compress(b'{"path": "a.png"}\n' * 9)[:-12], "line=2"),
    ],
)
def test_a_list_that_is_cut_off_or_no_text_says_where(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    assert part in problems(listed(tmp_path / name))


def test_a_list_without_a_column_of_places_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,age\nx,1\n")
    with pytest.raises(UsageError, match=r"expected a column named one of uri, .* got name, age"):
        listed(tmp_path / "a.csv")
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "b.csv").write_text("who,where_it_is\nx,a.png\n")
    assert [e.uri for e in listed(tmp_path / "b.csv", column="where_it_is")] == [str(tmp_path / "a.png")]


def test_a_folders_own_list_gives_its_pictures_their_columns_and_the_others_come_too(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "metadata.csv").write_text("file_name,caption\nb.png,bee\ngone.png,nothing\n")
    entries = listed(tmp_path, keep=("caption",))
    first = {entry.uri.rpartition("/")[2]: entry.kept.get("caption") for entry in reversed(entries)}
    assert first == {"a.png": None, "b.png": "bee", "c.png": None, "gone.png": "nothing"}


@pytest.mark.parametrize("text", ["pipe:cat a.tar", "PIPE:x", "simplecache::gs://bucket/a.png"])
def test_commands_and_chains_are_refused(text):
    with pytest.raises(UsageError, match=r"got a (command to run|chain of them)"):
        open_inputs([text])

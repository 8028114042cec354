import json
import re
import tarfile
import uuid
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from containers import caption, pictures_of, tar_bytes, write_every_kind, writer_below
from runs import write_pictures

from jobs.cli import main
from pipelines.evaluation.report_pictures import read_original
from pipelines.evaluation.report_reading import read_run
from pipelines.readers import ListingNotes, list_inputs, open_inputs
from pipelines.runs.plan import Plan
from pipelines.runs.plan_building import build_plan
from pipelines.stages.read_inputs import ReadInputs
from pipelines.storage import LocalStorage

NUM_PICTURES = 10


@pytest.fixture
def spae(tiny_model_dir, capsys):
    """Run `spae tokenize` with the tiny model: exit code and errors."""

    def run(*words: object) -> tuple[int, str]:
        code = main(["tokenize", "--model", str(tiny_model_dir), "--num-threads", "2", *map(str, words)])
        return code, capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("originals"), NUM_PICTURES)


@pytest.fixture(scope="module")
def corpus(photos, tmp_path_factory) -> dict[str, str]:
    """Kind of reader -> INPUT, over the same pictures."""
    root = tmp_path_factory.mktemp("corpus")
    return {kind: str(root / place) for kind, place in write_every_kind(photos, writer_below(root)).items()}


@pytest.fixture(scope="module")
def remote_corpus(photos) -> dict[str, str]:
    """The same behind an fsspec url."""
    filesystem, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"

    def write(path: str, content: bytes) -> None:
        filesystem.pipe_file(f"{root}/{path}", content)

    return {kind: f"memory://{root}/{place}" for kind, place in write_every_kind(photos, write).items()}


def read_by(place: str, folder: Path) -> list[bytes]:
    """What the first stage reads of an INPUT, in the order of a plan of three shards; in order of content."""
    folder.mkdir()
    draft = build_plan(list_inputs(open_inputs([place]), ListingNotes()), folder=folder, num_shards=3)
    draft.publish(LocalStorage(folder))
    plan = Plan.open(LocalStorage(folder), 3)
    contents = []
    for batch in (batch for shard in range(3) for batch in plan.rows_to_read(shard).combine_chunks().to_batches()):
        result = ReadInputs(retry_seconds=0.0).run(batch)
        assert result.rejected == ()
        contents += result.batch["bytes"].to_pylist()
    return sorted(contents)


@pytest.mark.parametrize("place", ["here", "behind a url"])
def test_any_reader_reads_the_same_pictures(tmp_path, photos, corpus, remote_corpus, place):
    expected = sorted(path.read_bytes() for path in photos.iterdir())
    for kind, text in (corpus if place == "here" else remote_corpus).items():
        assert read_by(text, tmp_path / kind) == expected, kind


def test_the_same_pictures_by_any_reader_give_the_same_tokens(tmp_path, corpus, remote_corpus, spae):
    code, errors = spae(*corpus.values(), *remote_corpus.values(), "--out", tmp_path / "run", "--num-shards", 3)
    assert code == 0, errors
    table = pq.read_table(tmp_path / "run" / "data")
    # Four corpora in containers and two of files (globs and lists name these again), each here and behind a url.
    assert table.num_rows == 2 * (4 + 2) * NUM_PICTURES
    tokens: dict[str, set[object]] = {}
    layers = [name for name in table.schema.names if name.startswith("tokens_")]
    for row in table.to_pylist():
        tokens.setdefault(row["content_sha256"], set()).add(tuple(tuple(row[layer]) for layer in layers))
    assert len(tokens) == NUM_PICTURES
    assert {len(found) for found in tokens.values()} == {1}
    assert main(["verify", str(tmp_path / "run")]) == 0


def test_what_is_kept_lies_beside_the_tokens_with_its_type_in_every_file(tmp_path, corpus, spae):
    inputs = [corpus[kind] for kind in ("Parquet with bytes", "JSONL", "compressed tar")]
    code, errors = spae(*inputs, "--out", tmp_path / "run", "--keep-columns", "label,caption,score", "--num-shards", 15)
    assert code == 0, errors
    parts = sorted((tmp_path / "run" / "data").iterdir())
    schemas = {pq.read_schema(part).remove_metadata() for part in parts}
    assert len(schemas) == 1
    (schema,) = schemas
    assert schema.names[:8] == [
        *("sample_id", "uri", "content_sha256", "width_px", "height_px", "label", "caption", "score")
    ]
    assert [str(schema.field(name).type) for name in ("label", "caption", "score")] == ["int64", "string", "double"]
    rows = pq.read_table(tmp_path / "run" / "data").to_pylist()
    assert len(rows) == 3 * NUM_PICTURES
    assert all(row["caption"] == caption(row["label"]) for row in rows)
    assert sum(row["score"] is None for row in rows) == 2 * NUM_PICTURES  # lists alone have a score
    assert main(["verify", str(tmp_path / "run")]) == 0


def test_what_is_kept_belongs_to_its_picture(tmp_path, spae):
    pictures = pictures_of(write_pictures(tmp_path / "photos", 12))
    (tmp_path / "a.tar").write_bytes(tar_bytes(pictures))
    spae(tmp_path / "a.tar", "--out", tmp_path / "run", "--keep-columns", "__key__,txt,cls", "--num-shards", 5)
    for row in pq.read_table(tmp_path / "run" / "data").to_pylist():
        number = list(pictures).index(row["uri"].rpartition("#")[2])
        assert (row["__key__"], row["txt"], row["cls"]) == (f"picture-{number:03d}", caption(number), number)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("caption,nosuch", r"got nosuch; there are caption, label, score\. Choose among these"),
        ("uri", "expected a name the dataset does not use itself"),
        ("tokens_0", "expected a name the dataset does not use itself"),
        ("caption,caption", "expected each column once, got caption"),
        ("", "expected each column once, got an empty name"),
    ],
)
def test_a_column_that_cannot_be_kept_is_refused_before_anything_is_written(tmp_path, corpus, spae, columns, message):
    code, errors = spae(corpus["JSONL"], "--out", tmp_path / "run", "--keep-columns", columns)
    assert code == 2
    assert re.search(message, errors)
    assert not (tmp_path / "run").exists()


def test_a_truncated_tar_gives_what_can_be_read_a_quarantined_row_and_exit_code_1(tmp_path, spae):
    pictures = pictures_of(write_pictures(tmp_path / "photos", 12))
    whole = tar_bytes(pictures)
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    code, errors = spae(tmp_path / "a.tar", "--out", tmp_path / "run")
    assert code == 1
    assert "got 1 places where one could not be read (read_inputs/DamagedContainer" in errors
    assert 0 < pq.read_table(tmp_path / "run" / "data").num_rows < 12
    (row,) = pq.read_table(tmp_path / "run" / "quarantine").to_pylist()
    assert (row["uri"], row["error_class"]) == (f"{tmp_path / 'a.tar'}#damaged", "DamagedContainer")
    assert "expected a whole tar" in row["message"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["num_planned"] == manifest["num_ok"] + manifest["num_quarantined"]
    assert spae(tmp_path / "a.tar", "--out", tmp_path / "run")[0] == 1  # asked again, it is still not a success


def test_a_tar_that_is_replaced_while_a_run_is_under_way_is_not_read_as_if_it_were_the_old_one(tmp_path, spae):
    pictures = pictures_of(write_pictures(tmp_path / "photos", 4))
    (tmp_path / "a.tar").write_bytes(tar_bytes(pictures))
    code, _ = spae(tmp_path / "a.tar", "--out", tmp_path / "run", "--num-shards", 2)
    assert code == 0
    other = pictures_of(write_pictures(tmp_path / "others", 4, seed=1))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in other:
            tar.add(tmp_path / "others" / name, arcname=name)
    code, errors = spae(tmp_path / "a.tar", "--out", tmp_path / "run", "--num-shards", 2)
    assert (code, "4 changed" in errors) == (2, True)


def test_a_command_written_as_an_input_is_refused(tmp_path, spae):
    code, errors = spae("pipe:curl example.org/a.tar", "--out", tmp_path / "run")
    assert (code, "got a command to run" in errors) == (2, True)
    (tmp_path / "list.jsonl").write_text('{"url": "pipe:rm -r photos"}\n')
    code, errors = spae(tmp_path / "list.jsonl", "--out", tmp_path / "run")
    assert (code, "got a command to run" in errors) == (2, True)


def test_the_report_and_the_decoder_work_on_a_run_over_containers_with_kept_columns(tmp_path, corpus, spae):
    inputs = [corpus[kind] for kind in ("tars in a folder", "compressed tar", "Parquet with bytes")]
    spae(*inputs, "--out", tmp_path / "run", "--num-shards", 3, "--keep-columns", "label")
    run = read_run(str(tmp_path / "run"), num_samples=3 * NUM_PICTURES)
    assert len(run.samples) == 3 * NUM_PICTURES
    assert {read_original(row, 32).absent for row in run.samples} == {""}
    assert main(["report", str(tmp_path / "run")]) == 0
    assert main(["detokenize", str(tmp_path / "run"), "--out", str(tmp_path / "pictures")]) == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3 * NUM_PICTURES

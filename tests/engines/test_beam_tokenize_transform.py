"""`TokenizeImages` inside pipelines that are not ours."""

import runpy
import sys
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.typehints.decorators import TypeCheckError
from runs import write_pictures
from tiny_runs import TinyRun

from pipelines.engines.beam import TokenizeImages
from pipelines.engines.beam.options import open_runner
from pipelines.errors import BadDataError

pytestmark = pytest.mark.engine

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "beam_own_pipeline.py"


@pytest.fixture
def pipeline():
    options = PipelineOptions([])
    return beam.Pipeline(runner=open_runner(options), options=options)


@pytest.fixture
def pictures(tmp_path):
    return {path.name: path.read_bytes() for path in sorted(write_pictures(tmp_path / "photos", 10).iterdir())}


@pytest.fixture
def expected(tmp_path, pictures, tiny_model_dir):
    """Rows of the local engine by file name, as the transform gives them."""
    run = TinyRun.over(tmp_path / "photos", tmp_path / "run", tiny_model_dir)
    run.run(run.local())
    rows = pq.read_table(run.folder / "data").to_pylist()
    return {
        Path(row.pop("uri")).name: {name: value for name, value in row.items() if name != "sample_id"} for row in rows
    }


def test_keyed_pictures_get_the_tokens_the_local_engine_gives_them(pipeline, pictures, expected, tiny_model_dir):
    with pipeline:
        tokens = pipeline | beam.Create(pictures.items()) | TokenizeImages(str(tiny_model_dir))
        assert_that(tokens, equal_to([{"key": name, **row} for name, row in expected.items()]))


def test_plain_bytes_are_named_by_their_hash_and_equal_ones_are_all_kept(pipeline, pictures, expected, tiny_model_dir):
    content, row = pictures["picture-003.png"], expected["picture-003.png"]
    with pipeline:
        tokens = pipeline | beam.Create([content, content]) | TokenizeImages(str(tiny_model_dir), num_layers=2)
        cut = {name: value for name, value in row.items() if name not in {f"tokens_{i}" for i in range(2, 9)}}
        assert_that(tokens, equal_to(2 * [{"key": row["content_sha256"], **cut}]))


def test_unreadable_pictures_have_an_output_of_their_own(pipeline, pictures, expected, tiny_model_dir):
    with pipeline:
        tokens, rejected = (
            pipeline
            | beam.Create([(1, b"garbage"), (2, pictures["picture-000.png"]), (3, b"")])
            | TokenizeImages(str(tiny_model_dir)).with_exception_handling()
        )
        reasons = rejected | beam.Map(lambda row: (row["key"], row["stage"], row["error_class"], bool(row["message"])))
        wanted = [(1, "decode_images", "NotAnImage", True), (3, "decode_images", "EmptyFile", True)]
        assert_that(tokens, equal_to([{"key": 2, **expected["picture-000.png"]}]), label="tokens")
        assert_that(reasons, equal_to(wanted), label="reasons")


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (("a", b"garbage"), "picture 'a': expected one that can be tokenized, got NotAnImage in decode_images"),
        ("a path", r"input of TokenizeImages: expected bytes or \(key, bytes\), got str"),
    ],
)
def test_without_that_output_such_a_picture_fails_the_pipeline(pipeline, tiny_model_dir, element, message):
    elements = pipeline | beam.Create([element]) | beam.Map(lambda picture: picture).with_output_types(Any)
    _ = elements | TokenizeImages(str(tiny_model_dir))
    with pytest.raises((BadDataError, TypeError), match=message):
        pipeline.run()


def test_beam_refuses_what_is_known_to_be_no_picture_when_the_pipeline_is_built(pipeline, tiny_model_dir):
    with pytest.raises(TypeCheckError, match="'Union\\[<class 'bytes'>, Tuple\\[Any, <class 'bytes'>\\]\\]'"):
        _ = pipeline | beam.Create(["a path"]) | TokenizeImages(str(tiny_model_dir))


def test_more_layers_than_the_model_has_are_refused_before_anything_runs(tiny_model_dir):
    with pytest.raises(ValueError, match=r"num_layers of .*: expected 1 to"):
        TokenizeImages(str(tiny_model_dir), num_layers=99)


def test_the_example_writes_tokens_and_says_what_it_could_not_read(
    tmp_path, pictures, expected, tiny_model_dir, monkeypatch, capsys
):
    (tmp_path / "photos" / "bad.png").write_bytes(b"garbage")
    words = [str(tmp_path / "photos" / "*.png"), str(tmp_path / "tokens"), "--model", str(tiny_model_dir)]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *words])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    rows = {Path(row["key"]).name: row for row in pq.read_table(tmp_path / "tokens").to_pylist()}
    assert rows.keys() == pictures.keys()
    assert all(rows[name]["tokens_1"] == expected[name]["tokens_1"] for name in rows)
    assert "bad.png: NotAnImage" in capsys.readouterr().out

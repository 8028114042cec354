"""The page of a training: whole in itself, right about its run, and safe with any text."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from pipelines.evaluation.training_page import render_training_page, write_training_page


def row(step: int, **extra: object) -> dict:
    return {
        "step": step,
        "seconds": step * 30.0,
        "losses": {"reconstruction": 1.0 / step, "commitment": 0.5, "codebook": 0.0, "total": 2.0},
        "learning_rate": 1e-3,
        "gradient_norm": 0.5,
        "perplexity": [2.0, None, 8.0],
    } | extra


def evaluation(psnr: float) -> dict:
    return {"psnr_db": {"2": psnr - 1, "3": psnr}, "perplexity": [4.0, 16.0, 1234.0]}


@pytest.fixture
def run(tmp_path) -> Path:
    """A folder with settings and two grids of 3 pictures above 2 reconstructions, 8 px each."""
    folder = tmp_path / "my-run"
    (folder / "samples").mkdir(parents=True)
    for step, shade in ((1, 50), (120, 200)):
        grid = Image.new("RGB", (3 * 10 + 2, 3 * 10 + 2), "white")
        for place in range(9):
            colour = ((255, 0, 0), (0, 0, shade), (0, shade, 0))[place // 3]
            grid.paste(Image.new("RGB", (8, 8), colour), (2 + 10 * (place % 3), 2 + 10 * (place // 3)))
        grid.save(folder / "samples" / f"step-{step:08d}.png")
    description = {
        "config": {"name": "tiny<script>", "image_size_px": 8, "quantizer": {"kind": "saq"}},
        "recipe": {"num_steps": 200, "batch_size": 4},
        "num_crops": 160,
        "versions": {"torch": "2"},
    }
    (folder / "config.json").write_text(json.dumps(description))
    return folder


ROWS = [row(1, evaluation=evaluation(10.0)), row(60), row(120, evaluation=evaluation(21.54))]


def test_the_page_says_how_far_the_run_is_and_how_good(run):
    page = render_training_page(run, ROWS)
    for text in (
        "after 120 steps",
        "80 of 200 steps are left",
        "1 h 0 min",
        "each seen 3.0 times",
        "21.54 dB",
        "1,234",
    ):
        assert text in page, text
    assert "quantizer.kind" in page
    finished = render_training_page(run, [*ROWS, row(200)])
    assert "not finished" not in finished


def test_the_page_has_a_curve_for_everything_logged(run):
    page = render_training_page(run, ROWS)
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles == [
        "PSNR of fixed train crops, dB",
        "codebook perplexity over the fixed crops",
        "codebook perplexity in the steps since the last line",
        "squared error of pixels",
        "commitment",
        "total",
        "learning rate",
        "gradient norm",
    ]
    assert page.count("<path ") == 2 + 3 + 2 + 5  # a layer that windows never met has no curve
    assert "nan" not in page.lower().replace("nanmean", "")


def test_the_pictures_are_the_originals_and_the_deepest_reconstructions(run):
    page = render_training_page(run, ROWS)
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        for data in re.findall(r'src="data:image/webp;base64,(.*?)"', page)
    ]
    assert [picture.size for picture in pictures] == [(28, 8)] * 3
    centres = [picture.getpixel((4, 4)) for picture in pictures]
    for found, expected in zip(centres, ((255, 0, 0), (0, 50, 0), (0, 200, 0)), strict=True):
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 25, (found, expected)
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == ["original", "step 1", "step 120"]


def test_the_page_needs_no_other_file_and_no_script_and_escapes_what_it_shows(run):
    path = write_training_page(run, ROWS)
    page = path.read_text()
    assert path.name == "training.html"
    assert "<script" not in page
    assert "tiny&lt;script&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "default-src 'none'" in page
    assert not list(run.glob("*.partial"))


def test_a_run_that_has_only_begun_has_a_page_too(tmp_path):
    assert "after 0 steps" in render_training_page(tmp_path, [])
    assert "after 1 step<" in render_training_page(tmp_path, [row(1)])

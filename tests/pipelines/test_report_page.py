"""The page as a file: everything in it, nothing outside it, and none of the run's text as markup."""

import base64
import json
import re
import shutil
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_runs import GRIDS, HOSTILE_NAME, HOSTILE_WORDS, small_model, tokenize, write_photos

from pipelines.errors import UsageError
from pipelines.evaluation.report import build_report
from pipelines.evaluation.report_page import render_page
from pipelines.evaluation.report_pictures import Original
from pipelines.evaluation.report_reading import read_run
from pipelines.evaluation.report_view import SamplePictures, layer_views
from spae_core.errors import ModelError
from spae_core.tokenizer import SpaeTokenizer

NAMES = (HOSTILE_NAME, "a.png", "b.png", "c.png")


class Page(HTMLParser):
    """Elements with their attributes, and all text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._is_raw = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._is_raw = tag in ("script", "style")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_raw = False

    def handle_data(self, data: str) -> None:
        if not self._is_raw:
            self.text += re.sub(r"\s+", " ", data)
        elif self.scripts:
            self.scripts[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small-model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_photos(tmp_path_factory.mktemp("photos"), NAMES)
    (folder / "<i>empty.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def run_folder(photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenize(photos, tmp_path_factory.mktemp("run") / "tokens", model)


@pytest.fixture(scope="module")
def html(run_folder: Path) -> str:
    return build_report(str(run_folder))


def test_the_page_refers_to_nothing_outside_itself(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "data"):
                assert value is not None
                assert value.startswith(("#", "data:")), (tag, name, value[:80])
    css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert css is not None
    assert "url(" not in css[1]
    assert "@import" not in css[1]


def test_only_the_scripts_of_the_page_itself_may_run(html: str) -> None:
    page = Page(html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    types = [attributes.get("type") for attributes in page.all("script")]
    assert types == ["application/json", None]
    digest = base64.b64encode(sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_words_and_file_names_stay_text(html: str) -> None:
    page = Page(html)
    assert HOSTILE_NAME in page.text
    assert all((attributes.get("src") or "").startswith("data:") for attributes in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    # Bold text is ours alone: no word of the codebook made any.
    assert not re.search(r"<b>bold", html)
    assert any(word in page.text for word in HOSTILE_WORDS)
    assert "/<i>empty.jpg" in page.text


def test_the_pyramids_of_the_page_are_those_of_the_dataset(html: str, run_folder: Path) -> None:
    data = json.loads(Page(html).scripts[0])
    run = read_run(str(run_folder), num_samples=24)
    assert [tuple(layer["grid"]) for layer in data["layers"]] == list(GRIDS)
    assert len(data["samples"]) == len(run.samples) == len(NAMES)
    for shown, row in zip(data["samples"], run.samples, strict=True):
        assert shown["name"] == row.uri.rpartition("/")[2]
        for positions, codes in zip(shown["layers"], row.code_indices, strict=True):
            assert [data["words"][position] for position in positions] == [
                [run.words[code], code, run.token_ids[code]] for code in codes
            ]
        assert len(shown["colours"]) == 64


def test_every_sample_has_its_original_and_two_decoded_pictures_with_their_psnr(html: str) -> None:
    page = Page(html)
    frames = [a for a in page.all("img") if a.get("alt")]
    assert len(frames) == 3 * len(NAMES)
    assert page.text.count("From 4 layers") == page.text.count("From 5 layers") == len(NAMES)
    assert len(re.findall(r"149 words, \d+\.\d dB", page.text)) == len(NAMES)
    assert "85 words" in page.text


def test_the_facts_of_the_run_are_told(html: str, model: Path) -> None:
    text = Page(html).text
    for fact in ("4 pictures in 596 words", "small-model", "64 words", "of 5 inputs", "most often EmptyFile"):
        assert fact in text
    for label in (
        "Pictures a second",
        "Bytes a picture",
        "PSNR",
        "Perplexity",
        "Codebook usage",
        "Most used",
    ):
        assert label in text
    assert "A made-up <LLM>, random vectors" in text
    assert "expected at least 1 byte, got 0 bytes" in text
    assert str(model) in text


def test_the_same_run_gives_the_same_page(html: str, run_folder: Path) -> None:
    assert build_report(str(run_folder)) == html


def test_layers_and_samples_can_be_chosen(run_folder: Path) -> None:
    row = read_run(str(run_folder), num_samples=9).samples[2]
    page = Page(build_report(str(run_folder), layers=(1, 3), sample_ids=[row.sample_id]))
    assert len([a for a in page.all("img") if a.get("alt")]) == 3
    assert "From 1 layer" in page.text
    assert "From 3 layers" in page.text
    with pytest.raises(UsageError, match="expected 1 to 5, got 6"):
        build_report(str(run_folder), layers=(6,))


def test_ranked_layers_are_told_apart(run_folder: Path) -> None:
    run = read_run(str(run_folder), num_samples=1)
    assert [layer.ranks for layer in layer_views(run, 3)] == [
        "rank 1",
        "ranks 2 to 5",
        "ranks 6 to 21",
        "",
        "",
    ]
    samples = [SamplePictures(row=row, original=Original(pixels=None, absent="gone")) for row in run.samples]
    assert "one ranked list" in render_page(run, samples, num_ranked_layers=3)
    assert "one ranked list" not in render_page(run, samples)


def test_originals_that_are_gone_leave_a_page_that_says_so(photos: Path, model: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "photos"
    shutil.copytree(photos, inputs)
    run_folder = tokenize(inputs, tmp_path / "run", model)
    (inputs / "a.png").unlink()
    shutil.copy(inputs / "b.png", inputs / "c.png")
    page = Page(build_report(str(run_folder)))
    assert "it is no longer there" in page.text
    assert "another picture has taken its place" in page.text
    assert "2 of the 4 originals" in page.text
    # Their words and decoded pictures are shown all the same.
    assert len([a for a in page.all("img") if a.get("alt")]) == 3 * len(NAMES) - 2
    shutil.rmtree(inputs)
    page = Page(build_report(str(run_folder)))
    assert "4 of the 4 originals" in page.text
    assert "dB" not in page.text


def test_a_model_that_is_gone_leaves_a_page_that_says_so_unless_it_is_named(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "model"
    shutil.copytree(model, moved)
    run_folder = tokenize(photos, tmp_path / "run", moved)
    shutil.rmtree(moved)
    page = Page(build_report(str(run_folder)))
    assert "No picture could be decoded" in page.text
    assert len([a for a in page.all("img") if a.get("alt")]) == len(NAMES)
    assert "From 5 layers" in Page(build_report(str(run_folder), model=str(model))).text
    with pytest.raises(ModelError):
        build_report(str(run_folder), model=str(moved))


def test_another_model_is_refused(run_folder: Path, model: Path, tmp_path: Path) -> None:
    other = SpaeTokenizer.from_pretrained(model)
    other.decoder.requires_grad_(False)
    next(iter(other.decoder.parameters())).mul_(2)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"weights of model .* Name the right model with --model"):
        build_report(str(run_folder), model=str(tmp_path / "other"))


def test_a_run_of_quarantined_rows_only_gives_a_page_that_says_so(model: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "photos"
    inputs.mkdir()
    for name in ("a.jpg", "<b>.jpg"):
        (inputs / name).write_bytes(b"")
    text = Page(build_report(str(tokenize(inputs, tmp_path / "run", model)))).text
    assert "No pictures in this run" in text
    assert "2 of 2 inputs went to quarantine" in text
    assert "EmptyFile" in text
    assert "There are no words to count" in text


def test_a_run_that_has_only_begun_gives_a_page_that_says_so(run_folder: Path, tmp_path: Path) -> None:
    begun = tmp_path / "run"
    begun.mkdir()
    for name in ("config.json", "plan.parquet", "codebook.parquet"):
        shutil.copy(run_folder / name, begun / name)
    text = Page(build_report(str(begun))).text
    assert "not finished" in text
    assert "No pictures in this run" in text


def test_no_samples_can_be_asked_for(run_folder: Path) -> None:
    page = Page(build_report(str(run_folder), num_samples=0))
    assert "4 pictures in 596 words" in page.text
    assert page.all("img") == []
    assert "Perplexity" in page.text

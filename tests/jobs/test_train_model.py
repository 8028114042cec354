"""`spae train` on made-up pictures with the tiny preset: what it leaves behind, what it refuses, and Ray's workers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_photos
from PIL import Image
from safetensors.torch import load_file

from jobs.cli import main
from pipelines.training.crop_set import open_crops
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.tokenizer import SpaeTokenizer


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_photos(tmp_path / "photos", 4)


@pytest.fixture
def codebook_file(tiny_codebook, tmp_path) -> Path:
    tiny_codebook.save(tmp_path / "codebook.safetensors")
    return tmp_path / "codebook.safetensors"


def train(photos: Path, codebook: Path, out: Path, *words: object) -> int:
    fixed = ["train", "--preset", "tiny", "--data", str(photos), "--codebook", str(codebook), "--out", str(out)]
    return main([*fixed, *map(str, words)])


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_training_leaves_a_model_a_log_a_page_and_a_list_of_what_it_could_not_read(
    photos, codebook_file, tmp_path, capsys
):
    out = tmp_path / "run"
    assert train(photos, codebook_file, out, "--num-steps", 6) == 0
    said = capsys.readouterr()
    assert f"model: {out / 'model'}" in said.out
    assert "1 pictures could not be read" in said.err
    assert "broken.png" in (out / "crops" / "unreadable.txt").read_text()
    rows = log_of(out)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert "evaluation" in rows[0]
    assert "evaluation" in rows[-1]
    assert json.loads((out / "config.json").read_text())["num_crops"] == 16
    assert "tiny <em>after 6 steps" in (out / "training.html").read_text()
    with Image.open(out / "curves.png") as curves:
        assert curves.size == (1200, 320)
        assert curves.convert("L").getextrema()[0] < 128  # something is drawn
    model = SpaeTokenizer.from_pretrained(out / "model")
    assert model.tokenize(torch.rand(1, 3, 32, 32)).num_layers == 4
    # A longer run goes on where this one stopped.
    assert train(photos, codebook_file, out, "--num-steps", 8) == 0
    assert "resuming after step 6" in capsys.readouterr().err
    assert [row["step"] for row in log_of(out)] == list(range(1, 9))


def test_a_trained_model_is_gone_on_from_and_keeps_its_codebook(photos, codebook_file, tmp_path):
    assert train(photos, codebook_file, tmp_path / "first", "--num-steps", 20) == 0
    words = ["train", "--preset", "tiny", "--data", str(photos), "--out", str(tmp_path / "more")]
    first = str(tmp_path / "first" / "model")
    assert main([*words, "--initial-model", first, "--num-steps", "1", "--learning-rate", "1e-9"]) == 0
    trained, more = (SpaeTokenizer.from_pretrained(tmp_path / run / "model") for run in ("first", "more"))
    assert more.codebook.sha256 == trained.codebook.sha256
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(more.state_dict()[name], weight, rtol=1e-3, atol=1e-6)  # stored as float16
    assert json.loads((tmp_path / "more" / "config.json").read_text())["recipe"]["matched_start"] is False


def test_a_trained_model_is_made_deeper_and_goes_on_where_it_was(photos, codebook_file, tmp_path):
    assert train(photos, codebook_file, tmp_path / "first", "--num-steps", 20) == 0
    words = ["train", "--preset", "tiny", "--data", str(photos), "--out", str(tmp_path / "more")]
    words += ["--initial-model", str(tmp_path / "first" / "model"), "--add-middle-blocks", "1", "2"]
    assert main([*words, "--num-steps", "2"]) == 0
    assert main([*words, "--num-steps", "3"]) == 0  # goes on from its own checkpoint
    first, more = (SpaeTokenizer.from_pretrained(tmp_path / run / "model") for run in ("first", "more"))
    assert more.config.encoder.num_middle_blocks == first.config.encoder.num_middle_blocks + 1
    assert more.config.decoder.num_middle_blocks == first.config.decoder.num_middle_blocks + 2
    assert [row["step"] for row in log_of(tmp_path / "more")] == [1, 2, 3]


def test_blocks_are_added_to_a_trained_model_alone(photos, codebook_file, tmp_path, capsys):
    assert train(photos, codebook_file, tmp_path / "run", "--add-middle-blocks", 1, 1) == 2
    assert "--add-middle-blocks: expected --initial-model beside it, got --codebook" in capsys.readouterr().err


def test_a_new_model_needs_a_codebook_and_a_trained_one_has_it(photos, codebook_file, tmp_path, capsys):
    words = ["train", "--preset", "tiny", "--data", str(photos), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "expected one of --codebook and --initial-model, got neither" in capsys.readouterr().err
    assert main([*words, "--codebook", str(codebook_file), "--initial-model", "spae-smol-128"]) == 2
    assert "expected one of --codebook and --initial-model, got both" in capsys.readouterr().err


def test_a_checkpoint_of_another_codebook_is_refused_with_both_hashes(
    photos, codebook_file, tiny_codebook, tmp_path, capsys
):
    assert train(photos, codebook_file, tmp_path / "run", "--num-steps", 1) == 0
    other = LexicalCodebook(
        embeddings=-tiny_codebook.embeddings,
        token_ids=tiny_codebook.token_ids,
        words=tiny_codebook.words,
        source="another",
    )
    other.save(tmp_path / "other.safetensors")
    assert train(photos, tmp_path / "other.safetensors", tmp_path / "run", "--num-steps", 2) == 2
    assert f"expected {other.sha256}, got {tiny_codebook.sha256}" in capsys.readouterr().err


def test_a_checkpoint_of_as_many_other_pictures_is_refused(photos, codebook_file, tmp_path, capsys):
    assert train(photos, codebook_file, tmp_path / "run", "--num-steps", 1) == 0
    before = open_crops(tmp_path / "run" / "crops").sha256
    others = write_photos(tmp_path / "others", 4, first_seed=100)
    assert train(others, codebook_file, tmp_path / "run", "--num-steps", 2) == 2
    now = open_crops(tmp_path / "run" / "crops").sha256
    assert f"crops_sha256: expected {now}, got {before}. Train into another folder" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_with_its_exit_code_and_the_step(photos, codebook_file, tmp_path, capsys):
    assert train(photos, codebook_file, tmp_path / "run", "--learning-rate", 1e30) == 3
    assert "got NaN or infinity in" in (said := capsys.readouterr().err)
    assert "at step " in said
    assert not (tmp_path / "run" / "model").exists()


def test_workers_without_ray_are_refused(photos, codebook_file, tmp_path, capsys):
    assert train(photos, codebook_file, tmp_path / "run", "--num-workers", 2) == 2
    assert "expected 1 with --engine local, got 2. Add --engine ray." in capsys.readouterr().err
    assert train(photos, codebook_file, tmp_path / "run", "--engine", "ray", "--num-workers", 3) == 2
    assert "batch_size: expected a multiple of the 3 workers, got 4" in capsys.readouterr().err


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_two_ray_workers_train_the_model_that_one_process_trains(photos, codebook_file, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert train(photos, codebook_file, alone, "--num-steps", 3) == 0
    assert train(photos, codebook_file, together, "--num-steps", 3, "--engine", "ray", "--num-workers", 2) == 0
    for row, expected in zip(log_of(together), log_of(alone), strict=True):
        assert row["losses"] == pytest.approx(expected["losses"], rel=1e-3, abs=1e-6)
        assert row["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)
        np.testing.assert_allclose(row["perplexity"], expected["perplexity"], rtol=0.05)
    weights, expected_weights = (load_file(run / "model" / "model.safetensors") for run in (together, alone))
    differences = [(weights[name].float() - value.float()).abs().mean() for name, value in expected_weights.items()]
    assert max(differences) < 1e-3  # stored as float16; one learning rate
    assert (together / "training.html").is_file()
    assert len(list((together / "checkpoints").glob("*.pt"))) == 1


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_what_a_ray_worker_dies_of_is_what_the_command_says(photos, codebook_file, tmp_path, capsys):
    words = ("--engine", "ray", "--num-workers", 2, "--learning-rate", 1e30)
    assert train(photos, codebook_file, tmp_path / "run", *words) == 3
    assert "spae: training: expected finite" in capsys.readouterr().err


@pytest.mark.engine
@pytest.mark.usefixtures("ray_cluster")
def test_more_workers_than_the_cluster_has_are_refused(photos, codebook_file, tmp_path, capsys):
    words = ("--engine", "ray", "--num-workers", 12, "--batch-size", 12)
    assert train(photos, codebook_file, tmp_path / "run", *words) == 2
    assert "expected at most 9, the CPUs of the Ray cluster, got 12" in capsys.readouterr().err

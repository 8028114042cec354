"""Two processes on halves of a batch take the step of one process on the whole of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from replica_runs import ReplicaRun, train_together
from training_runs import small_recipe

from spae_core.checkpoint import list_checkpoints
from spae_core.errors import ModelError
from spae_core.replicas import Replicas
from spae_core.training_batches import draw_batch
from spae_core.training_config import SemanticConfig, TrainingConfig


def full_recipe(**changes: object) -> TrainingConfig:
    """Every term that needs no downloaded weights, with nothing sampled: all cells, one candidate word."""
    semantic = SemanticConfig(
        weight=1.0, num_layers=3, rule="nearest", nearest=(1, 1, 1), temperature=0.1, max_cells=10_000
    )
    options = {"num_steps": 4, "checkpoint_every": 2, "entropy_weight": 0.05, "entropy_cells": 10_000}
    return small_recipe(semantic=semantic, layer_dropout=0.5, **options | changes)


@pytest.fixture
def codebook_file(tiny_codebook, tmp_path) -> Path:
    tiny_codebook.save(tmp_path / "codebook.safetensors")
    return tmp_path / "codebook.safetensors"


def assert_close(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        largest = float(expected[name].abs().max())
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance * max(largest, 1e-6), msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("trainable_projection", [False, True])
def test_two_replicas_take_the_steps_of_one(codebook_file, tmp_path, trainable_projection):
    run = ReplicaRun(
        folder=tmp_path / "one",
        codebook=codebook_file,
        recipe=full_recipe(),
        world_size=1,
        trainable_projection=trainable_projection,
    )
    (one,) = train_together(run)
    first, second = train_together(replace(run, folder=tmp_path / "two", world_size=2))
    assert one["losses"][0].keys() >= {
        "reconstruction",
        "commitment",
        "entropy",
        "semantic",
        "adversarial",
        "r1",
        "lecam",
    }
    for replica in (first, second):
        assert_close(replica["gradients"], one["gradients"], 1e-4)
        for losses, expected in zip(replica["losses"], one["losses"], strict=True):
            assert losses == pytest.approx(expected, rel=1e-3, abs=1e-6)
        np.testing.assert_allclose(replica["norms"], one["norms"], rtol=1e-3)
        np.testing.assert_allclose(replica["perplexity"][0], one["perplexity"][0], rtol=1e-6)
    # The two never drift apart, not by a bit.
    for part in ("weights", "averaged"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    moved = torch.cat([(first["weights"][name] - value).flatten() for name, value in one["weights"].items()])
    assert moved.abs().mean() < 0.02 * 1e-3  # of a learning rate; Adam blows up the rounding of near-zero gradients
    assert len(list_checkpoints(tmp_path / "two" / "checkpoints")) == 2


@pytest.mark.slow
def test_a_run_of_two_goes_on_as_one_and_the_reverse(codebook_file, tmp_path):
    run = ReplicaRun(folder=tmp_path / "a", codebook=codebook_file, recipe=full_recipe(num_steps=2), world_size=2)
    train_together(run)
    longer = replace(run, recipe=full_recipe(num_steps=4))
    (alone,) = train_together(replace(longer, world_size=1))
    assert alone["began"] == 2
    run = replace(run, folder=tmp_path / "b", world_size=1)
    train_together(run)
    pair = train_together(replace(longer, folder=tmp_path / "b", world_size=2))
    assert [replica["began"] for replica in pair] == [2, 2]
    assert pair[0]["losses"] == pair[1]["losses"]
    assert pair[0]["losses"][0] == pytest.approx(alone["losses"][0], rel=0.01)


@pytest.mark.slow
def test_what_is_not_finite_for_one_stops_all_and_keeps_the_checkpoint(codebook_file, tmp_path):
    run = ReplicaRun(
        folder=tmp_path / "run", codebook=codebook_file, recipe=full_recipe(num_steps=9), world_size=2, poison=3
    )
    for replica in train_together(run):
        assert "TrainingError: training: expected finite losses, got NaN or infinity in" in replica["error"]
        assert "at step 4" in replica["error"]
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["checkpoint-00000002.pt"]


def test_a_share_is_a_slice_of_the_batch_that_one_would_draw(tiny_tokenizer):
    crops = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    options = {"seed": 3, "step": 2, "batch_size": 6, "window_cells": 2}
    subsampler = tiny_tokenizer.quantizer.subsampler
    whole = draw_batch(crops, None, subsampler, **options)
    for rank in range(3):
        positions = Replicas(rank, 3).share_of(6)
        share = draw_batch(crops, None, subsampler, positions=positions, **options)
        for name in ("indices", "images", "masks", "first_owner"):
            assert torch.equal(getattr(share, name), getattr(whole, name)[positions.start : positions.stop]), name


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(ModelError, match=r"multiple of the 3 workers, got 16\. Use --batch-size 18"):
        Replicas(0, 3).share_of(16)
    assert [Replicas(rank, 4).share_of(8) for rank in range(4)] == [range(r, r + 2) for r in range(0, 8, 2)]


def test_a_process_alone_averages_nothing():
    alone, value = Replicas(), torch.tensor([1.0, 2.0], requires_grad=True)
    assert alone.mean(value) is value
    assert alone.total(value) is value
    alone.average_gradients([value])
    assert value.grad is None

"""The training loop on made-up pictures: it learns, and stops with a word when it must."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from training_runs import plain_recipe, small_recipe, smooth_crops, trainer_of

from spae_core.checkpoint import checkpoint_path, list_checkpoints
from spae_core.errors import TrainingError
from spae_core.training_batches import draw_batch
from spae_core.training_config import TrainingConfig


def test_the_loss_falls_with_every_part_of_the_papers_loss_that_needs_no_download(tiny_codebook, tmp_path):
    recipe = small_recipe(num_steps=60, checkpoint_every=60)
    reports = list(trainer_of(tmp_path, tiny_codebook, recipe).steps())
    assert [report.step for report in reports] == list(range(1, 61))
    losses = [report.losses["reconstruction"] for report in reports]
    assert np.mean(losses[-8:]) < 0.3 * np.mean(losses[:3])
    assert reports[0].losses.keys() == {
        "reconstruction",
        "commitment",
        "codebook",
        "adversarial",
        "total",
        "discriminator",
        "lecam",
        "r1",
    }
    assert all(report.gradient_norm > 0 for report in reports)
    assert all(len(report.perplexity) == 4 for report in reports)
    assert max(reports[0].perplexity) > 4
    assert [report.step for report in reports if report.checkpoint] == [60]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tiny_codebook, tmp_path):
    trainer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=20, checkpoint_every=2))
    steps = trainer.steps()
    for _ in range(5):
        next(steps)
    with torch.no_grad():
        trainer.model.decoder.to_pixels.bias.fill_(torch.inf)
    with pytest.raises(TrainingError, match=r"got NaN or infinity in reconstruction, total at step 6") as caught:
        next(steps)
    assert str(checkpoint_path(tmp_path, 4)) in str(caught.value)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 2), checkpoint_path(tmp_path, 4)]
    resumed = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=20, checkpoint_every=2))
    assert resumed.step == 4
    assert np.isfinite(next(resumed.steps()).losses["total"])


def test_a_far_too_large_learning_rate_ends_in_a_clear_error(tiny_codebook, tmp_path):
    recipe = plain_recipe(learning_rate=1e30, warmup_steps=0, checkpoint_every=50)
    with pytest.raises(TrainingError, match=r"at step 2\..*none yet.*Lower the learning rate"):
        list(trainer_of(tmp_path, tiny_codebook, recipe).steps())


def test_the_checkpoint_that_a_broken_step_began_with_is_not_called_good(tiny_codebook, tmp_path):
    trainer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=20, checkpoint_every=2))
    steps = trainer.steps()
    for _ in range(4):
        next(steps)
    with torch.no_grad():
        trainer.model.decoder.to_pixels.bias.fill_(torch.inf)
    good, suspect = checkpoint_path(tmp_path, 2), checkpoint_path(tmp_path, 4)
    with pytest.raises(TrainingError, match=f"at step 5. Last good checkpoint: {good}. Delete {suspect}"):
        next(steps)
    recipe = plain_recipe(learning_rate=1e30, warmup_steps=0, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"at step 2\. Last good checkpoint: none yet\. Delete .*00000001\.pt"):
        list(trainer_of(tmp_path / "b", tiny_codebook, recipe).steps())


def test_weights_that_overflow_never_become_a_checkpoint(tiny_codebook, tmp_path):
    trainer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=1))
    trainer.optimizer.register_step_post_hook(lambda *_: trainer.model.decoder.to_pixels.bias.data.fill_(torch.inf))
    with pytest.raises(TrainingError, match=r"infinity in decoder\.to_pixels\.bias at step 1"):
        list(trainer.steps())
    assert list_checkpoints(tmp_path) == []


def test_the_learning_rate_warms_up_and_falls_as_a_cosine():
    recipe = plain_recipe(num_steps=10, warmup_steps=2, learning_rate=8.0, final_learning_rate=0.25)
    # Up to 8 in two steps, then from 8 to 2 over eight: 2 + 6·(1 + cos(π t/8))/2.
    rates = [recipe.learning_rate_at(step) for step in (0, 1, 2, 4, 6, 8, 10)]
    half = 2**0.5 / 2
    assert rates == pytest.approx([4, 8, 8, 2 + 3 * (1 + half), 5, 2 + 3 * (1 - half), 2])
    constant = replace(recipe, final_learning_rate=1.0, warmup_steps=4)
    assert [constant.learning_rate_at(step) for step in (0, 1, 3, 9)] == pytest.approx([2, 4, 8, 8])


def test_the_schedule_is_what_steps_are_taken_with(tiny_codebook, tmp_path):
    recipe = plain_recipe(num_steps=5, warmup_steps=3, learning_rate=3e-3, final_learning_rate=0.0)
    reports = list(trainer_of(tmp_path, tiny_codebook, recipe).steps())
    expected = [1e-3, 2e-3, 3e-3, 3e-3, 1.5e-3]
    assert [report.learning_rate for report in reports] == pytest.approx(expected)
    trainer = trainer_of(tmp_path / "b", tiny_codebook, recipe)
    before = [parameter.detach().clone() for parameter in trainer.parameters]
    next(trainer.steps())
    # Adam's first step is the learning rate for every weight whose gradient is far above epsilon.
    moves = [float((old - new).detach().abs().max()) for old, new in zip(before, trainer.parameters, strict=True)]
    assert max(moves) == pytest.approx(1e-3, rel=0.01)


def test_the_averaged_weights_are_the_moving_average_by_hand(tiny_codebook, tmp_path):
    trainer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=4, ema_decay=0.75))
    expected: list[Tensor] = []
    for _ in trainer.steps():
        now = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, now, strict=True)] if expected else now
    for average, by_hand in zip(trainer.averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(average.detach(), by_hand)
    assert not trainer.averaged.training
    assert trainer.model.training
    moved = zip(trainer.averaged.parameters(), trainer.model.parameters(), strict=True)
    assert not all(torch.equal(average, now) for average, now in moved)


def test_a_tiny_clipping_norm_all_but_stops_the_weights(tiny_codebook, tmp_path):
    def moved(clip: float) -> float:
        recipe = plain_recipe(num_steps=1, warmup_steps=0, gradient_clip_norm=clip)
        trainer = trainer_of(tmp_path / f"{clip}", tiny_codebook, recipe)
        before = [parameter.detach().clone() for parameter in trainer.parameters]
        list(trainer.steps())
        return max(float((a - b).detach().abs().max()) for a, b in zip(before, trainer.parameters, strict=True))

    # Adam moves by the learning rate whatever the gradient's size, unless it is far below its epsilon, 1e-8.
    assert moved(0.0) == pytest.approx(1e-3, rel=0.01)
    assert moved(1.0) == pytest.approx(1e-3, rel=0.01)
    assert moved(1e-12) < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"channels_last": True},
        {"window_cells": 2, "layer_dropout": 0.5},
        {"layer_dropout": 1.0, "entropy_weight": 0.01},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_every_way_of_stepping_steps(tiny_codebook, tmp_path, changes):
    reports = list(trainer_of(tmp_path, tiny_codebook, small_recipe(num_steps=2, **changes)).steps())
    assert [report.step for report in reports] == [1, 2]
    assert all(np.isfinite(value) for report in reports for value in report.losses.values())


def test_a_window_has_the_tokens_that_its_own_cells_own(tiny_codebook, tmp_path):
    trainer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=5, window_cells=2, log_every=100))
    list(trainer.steps())
    subsampler, owned = trainer.model.quantizer.subsampler, torch.zeros(4, dtype=torch.int64)
    for step in range(1, 5):  # the first step is reported, and its counts forgotten
        batch = draw_batch(smooth_crops(), None, subsampler, seed=0, step=step, batch_size=4, window_cells=2)
        owned += batch.masks.sum(dim=(0, 2, 3))
    assert trainer.statistics.counts.sum(dim=1).tolist() == owned.tolist()
    assert 0 < owned[0] < 16


def test_layer_dropout_decodes_shorter_prefixes_of_every_length(tiny_codebook, tmp_path):
    def layers_used(recipe: TrainingConfig) -> set[int]:
        """A layer that a step leaves out has no perplexity."""
        trainer = trainer_of(
            tmp_path / "-".join(map(str, (recipe.layer_dropout, recipe.window_cells))), tiny_codebook, recipe
        )
        return {int(np.isfinite(report.perplexity).sum()) for report in trainer.steps()}

    assert layers_used(plain_recipe(num_steps=16, layer_dropout=0.0)) == {4}
    assert layers_used(plain_recipe(num_steps=16, layer_dropout=1.0)) == {1, 2, 3}
    # Cells without a token cannot be filled inside a window: three layers are the least.
    windows = plain_recipe(num_steps=8, layer_dropout=1.0, window_cells=3, batch_size=8)
    assert layers_used(windows) == {3}

"""Training goes on from its checkpoints to the bit, and from no other run's."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_runs import plain_recipe, small_recipe, smooth_crops, stored, trainer_of

from spae_core.checkpoint import checkpoint_path
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import preset
from spae_core.training_batches import TrainingData


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every tensor and number of a nested state, by where it lies."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{index}")
    else:
        yield path, value


def assert_equal_states(first: dict[str, Any], second: dict[str, Any]) -> None:
    flat, other = dict(leaves(first)), dict(leaves(second))
    assert flat.keys() == other.keys()
    for path, value in flat.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, other[path]), path
        else:
            assert value == other[path], path


def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(tiny_codebook, tmp_path):
    recipe = small_recipe(
        num_steps=10, log_every=4, layer_dropout=0.5, entropy_weight=0.01, entropy_cells=20, window_cells=2
    )
    unbroken = {report.step: report for report in trainer_of(tmp_path / "a", tiny_codebook, recipe).steps()}
    first = trainer_of(tmp_path / "b", tiny_codebook, recipe).steps()
    for report in first:
        if report.step == 5:
            break
    first.close()
    # Another start, another global random state: all that counts must come from the checkpoint.
    second = trainer_of(tmp_path / "b", tiny_codebook, recipe, seed=123)
    assert second.step == 5
    for report in second.steps():
        assert report.losses == unbroken[report.step].losses
        assert report.gradient_norm == unbroken[report.step].gradient_norm
        np.testing.assert_equal(report.perplexity, unbroken[report.step].perplexity)
    resumed, reference = stored(tmp_path / "b", 10), stored(tmp_path / "a", 10)
    assert_equal_states(resumed, reference)
    paths = [path for path, value in leaves(reference["state"]) if isinstance(value, Tensor)]
    for part in ("model/", "averaged/", "optimizer/", "adversary/discriminator/", "adversary/optimizer/", "lecam/"):
        assert any(part in path for path in paths), part
    assert not torch.equal(
        stored(tmp_path / "a", 5)["state"]["model"]["encoder.stem.weight"],
        reference["state"]["model"]["encoder.stem.weight"],
    )


def test_a_finished_run_has_nothing_left_to_do(tiny_codebook, tmp_path):
    recipe = plain_recipe(num_steps=2)
    assert len(list(trainer_of(tmp_path, tiny_codebook, recipe).steps())) == 2
    again = trainer_of(tmp_path, tiny_codebook, recipe)
    assert again.step == 2
    assert list(again.steps()) == []


def test_watching_a_run_more_often_does_not_make_it_another(tiny_codebook, tmp_path):
    list(trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=2)).steps())
    watched = plain_recipe(num_steps=2, log_every=7, evaluate_every=1, checkpoint_every=3)
    assert trainer_of(tmp_path, tiny_codebook, watched).step == 2


def test_recomputing_activations_keeps_fewer_tensors_and_changes_no_bit(tiny_codebook, tmp_path):
    def count_kept(recomputes: bool) -> int:
        kept: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(1)
            return tensor

        recipe = plain_recipe(recompute_activations=recomputes, num_steps=3)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda same: same):
            list(trainer_of(tmp_path / str(recomputes), tiny_codebook, recipe).steps())
        return len(kept)

    num_kept = [count_kept(recomputes) for recomputes in (False, True)]
    assert num_kept[1] < 0.75 * num_kept[0]
    assert_equal_states(stored(tmp_path / "True", 3)["state"], stored(tmp_path / "False", 3)["state"])


def test_a_finished_run_may_be_lengthened(tiny_codebook, tmp_path):
    list(trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=2)).steps())
    longer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=4))
    assert [report.step for report in longer.steps()] == [3, 4]


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"recipe": plain_recipe(num_steps=2, learning_rate=0.5)}, ("'learning_rate': 0.5", "'learning_rate': 0.001")),
        ({"config": replace(preset("tiny"), name="tiny-2")}, ("'name': 'tiny-2'", "'name': 'tiny'")),
        ({"data": TrainingData(crops=smooth_crops(5))}, ("num_crops: expected 5, got 8",)),
    ],
    ids=["recipe", "preset", "crops"],
)
def test_a_checkpoint_of_another_run_is_refused_with_both_values(tiny_codebook, tmp_path, changes, values):
    list(trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=2)).steps())
    options = {"recipe": plain_recipe(num_steps=2)} | changes
    with pytest.raises(ModelError, match="belongs to another run") as caught:
        trainer_of(tmp_path, tiny_codebook, **options)
    assert all(value in str(caught.value) for value in values)


def test_a_checkpoint_of_another_codebook_is_refused_with_both_hashes(tiny_codebook, tmp_path):
    list(trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=2)).steps())
    other = LexicalCodebook(
        embeddings=-tiny_codebook.embeddings,
        token_ids=tiny_codebook.token_ids,
        words=tiny_codebook.words,
        source="another",
    )
    with pytest.raises(ModelError, match=f"expected {other.sha256}, got {tiny_codebook.sha256}"):
        trainer_of(tmp_path, other, plain_recipe(num_steps=2))


def test_a_truncated_checkpoint_is_refused_and_the_one_before_it_resumes(tiny_codebook, tmp_path):
    recipe = plain_recipe(num_steps=4, checkpoint_every=2)
    list(trainer_of(tmp_path, tiny_codebook, recipe).steps())
    newest = checkpoint_path(tmp_path, 4)
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(ModelError, match=f"{newest}: expected a whole checkpoint.*Delete it"):
        trainer_of(tmp_path, tiny_codebook, recipe)
    newest.unlink()
    assert trainer_of(tmp_path, tiny_codebook, recipe).step == 2

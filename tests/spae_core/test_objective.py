"""The loss of a step, term by term, on batches in which some layers have no cells."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from training_runs import plain_recipe

from spae_core.configs import RankedWordsConfig
from spae_core.objective import Objective
from spae_core.perceptual import Lpips
from spae_core.presets import preset
from spae_core.semantic_guidance import (
    SemanticCandidates,
    semantic_candidates,
    semantic_guidance_loss,
    semantic_similarity,
)
from spae_core.structs import Assignment
from spae_core.tokenizer import SpaeTokenizer
from spae_core.training_config import TrainingConfig, tiny_recipe

NEAREST = (1, 40, 3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def unit_rows(rows: int, seed: int) -> Tensor:
    return normalize(random(rows, 6, seed=seed) - 0.5, dim=1)


def guided_recipe(num_layers: int) -> TrainingConfig:
    semantic = replace(tiny_recipe().semantic, weight=1.0, num_layers=num_layers, rule="nearest", nearest=NEAREST)
    return plain_recipe(semantic=replace(semantic, temperature=0.05))


def guided(model: SpaeTokenizer, recipe: TrainingConfig) -> Objective:
    return Objective(model, recipe, device="cpu", image_features=unit_rows(5, 1), word_features=unit_rows(64, 2))


def assignment_without(model: SpaeTokenizer, *layers: int) -> Assignment:
    """Of two pictures' random latents; `layers` (from 0) own no cell."""
    masks = model.quantizer.subsampler.masks.expand(2, 4, 4, 4).clone()
    masks[:, list(layers)] = False
    return model.quantizer.assign(random(2, 8, 4, 4, seed=3), masks=masks)


def terms_of(objective: Objective, assignment: Assignment, images: int = 2) -> dict[str, Tensor]:
    return objective.terms(
        random(images, 3, 32, 32, seed=4),
        random(images, 3, 32, 32, seed=5),
        assignment,
        torch.arange(images) + 1,
        step=0,
        adversary=None,
        generator=torch.Generator().manual_seed(6),
    )


def test_only_layers_with_cells_are_guided_each_by_its_own_candidates(tiny_tokenizer):
    assignment = assignment_without(tiny_tokenizer, 0)
    found = terms_of(guided(tiny_tokenizer, guided_recipe(3)), assignment)["semantic"]
    candidates = semantic_candidates(semantic_similarity(unit_rows(5, 1)[1:3], unit_rows(64, 2)), nearest=NEAREST)
    expected = semantic_guidance_loss(
        assignment.layer_targets[1:3],
        [cells[:, 0] for cells in assignment.layer_cells[1:3]],
        tiny_tokenizer.quantizer.table(),
        SemanticCandidates(ranked=candidates.ranked, counts=candidates.counts[1:]),
        temperature=0.05,
        generator=torch.Generator().manual_seed(6),
    )
    assert torch.equal(found, expected)
    assert found > 0


def test_a_batch_without_any_guided_cell_has_a_semantic_term_of_0(tiny_tokenizer):
    terms = terms_of(guided(tiny_tokenizer, guided_recipe(1)), assignment_without(tiny_tokenizer, 0))
    assert terms["semantic"] == 0
    assert terms["total"] == terms["reconstruction"] + terms["commitment"]


def test_a_batch_whose_words_are_all_given_has_an_entropy_term_of_0(tiny_codebook):
    ranked = RankedWordsConfig(num_layers=2, text_dim=4, hidden_dim=4, num_classes=3)
    model = SpaeTokenizer(replace(preset("tiny"), ranked_words=ranked), tiny_codebook)
    recipe = plain_recipe(entropy_weight=0.5)
    two_layers = model.quantizer.assign(random(2, 8, 4, 4, seed=3), num_layers=2)
    given = Objective(model, recipe, device="cpu", words_are_given=True)
    assert terms_of(given, two_layers)["entropy"] == 0
    assert terms_of(given, assignment_without(model, 2, 3))["entropy"] == 0
    assert terms_of(given, assignment_without(model))["entropy"] < 0
    # Without given words the encoder chooses all of them.
    assert terms_of(Objective(model, recipe, device="cpu"), two_layers)["entropy"] < 0


@pytest.mark.parametrize(("pictures", "seen"), [(0, 4), (1, 1), (3, 3), (9, 4)])
def test_the_perceptual_term_looks_at_the_first_pictures_of_a_batch(tiny_tokenizer, pictures, seen):
    torch.manual_seed(0)
    lpips = Lpips("alex")
    recipe = plain_recipe(perceptual_weight=0.1, perceptual_net="alex", perceptual_pictures=pictures)
    assignment = tiny_tokenizer.quantizer.assign(random(4, 8, 4, 4))
    terms = terms_of(Objective(tiny_tokenizer, recipe, device="cpu", lpips=lpips), assignment, images=4)
    with torch.no_grad():
        distances = lpips(random(4, 3, 32, 32, seed=4), random(4, 3, 32, 32, seed=5)).flatten()
    assert len(distances.unique()) == 4
    torch.testing.assert_close(terms["perceptual"].detach(), distances[:seen].mean())

"""Words searched for: never worse than the encoder's, the semantic head's kept, each picture by itself."""

import pytest
import torch

from spae_core.errors import ModelError
from spae_core.perceptual import Lpips
from spae_core.refinement import RefinementConfig, refine

WEIGHT = 0.25


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Lpips("alex")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def distances(model, lpips, pyramid, images) -> torch.Tensor:
    decoded = model.detokenize(pyramid)
    with torch.inference_mode():
        return (decoded - images).square().mean(dim=(1, 2, 3)) + WEIGHT * lpips(decoded, images)


def test_the_words_found_decode_closer_than_the_encoders(tiny_tokenizer, lpips, images):
    found, measure = refine(tiny_tokenizer, images, lpips, RefinementConfig(num_steps=20, learning_rate=0.1))
    before = distances(tiny_tokenizer, lpips, tiny_tokenizer.tokenize(images), images)
    assert (measure < before).all()
    assert torch.allclose(measure, distances(tiny_tokenizer, lpips, found, images), atol=1e-6)


def test_a_search_that_finds_nothing_better_gives_the_encoders_words(tiny_tokenizer, lpips, images):
    found, _ = refine(tiny_tokenizer, images, lpips, RefinementConfig(num_steps=1, learning_rate=1e-9))
    assert torch.equal(found.flatten(), tiny_tokenizer.tokenize(images).flatten())


def test_each_picture_is_searched_for_by_itself(tiny_tokenizer, lpips, images):
    config = RefinementConfig(num_steps=4, learning_rate=0.1)
    together, _ = refine(tiny_tokenizer, images, lpips, config)
    for row in range(len(images)):
        alone, _ = refine(tiny_tokenizer, images[row : row + 1], lpips, config)
        assert (alone.flatten()[0] == together.flatten()[row]).float().mean() > 0.9  # sums round otherwise


def test_the_words_of_a_semantic_head_stay(naming_tokenizer, lpips, images):
    found, _ = refine(naming_tokenizer, images, lpips, RefinementConfig(num_steps=5, learning_rate=0.5))
    plain = naming_tokenizer.tokenize(images)
    for layer in range(3):
        assert torch.equal(found.code_indices[layer], plain.code_indices[layer])
    assert not torch.equal(found.code_indices[3], plain.code_indices[3])


def test_the_model_is_left_as_it_is(tiny_tokenizer, lpips, images):
    before = {name: weight.clone() for name, weight in tiny_tokenizer.state_dict().items()}
    refine(tiny_tokenizer, images, lpips, RefinementConfig(num_steps=2))
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_tokenizer.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_tokenizer.parameters())


def test_what_cannot_be_searched_is_refused(tiny_tokenizer, lpips):
    with pytest.raises(ModelError, match=r"got 0 and 0\.02"):
        RefinementConfig(num_steps=0)
    with pytest.raises(ModelError, match=r"expected float32 \(B, 3, 32, 32\)"):
        refine(tiny_tokenizer, torch.rand(1, 3, 16, 16), lpips)

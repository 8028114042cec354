"""Candidates on a vocabulary of five words that can be checked by eye, and the loss against a triple loop."""

import math

import pytest
import torch
from torch import Tensor

from spae_core.semantic_guidance import (
    NEAREST_COUNTS,
    PAPER_THRESHOLDS,
    SemanticCandidates,
    semantic_candidates,
    semantic_guidance_loss,
    semantic_similarity,
)

# A picture of a cat is (1, 0). Inner products 1, .84, .68, 0, -1, stretched to [0, 1]: 1, .92, .84, .5, 0.
WORDS = ("cat", "kitten", "dog", "car", "plane")
WORD_FEATURES = torch.tensor(
    [[1.0, 0.0], [0.84, math.sqrt(1 - 0.84**2)], [0.68, math.sqrt(1 - 0.68**2)], [0.0, 1.0], [-1.0, 0.0]]
)
CAT_PICTURE = torch.tensor([[1.0, 0.0]])


def words_of(candidates: SemanticCandidates, layer: int, image: int = 0) -> list[str]:
    return [WORDS[k] for k in candidates.ranked[image, : int(candidates.counts[layer, image])].tolist()]


def test_similarity_is_stretched_over_the_vocabulary_of_each_picture():
    plane_picture = torch.tensor([[-1.0, 0.0]])
    similarity = semantic_similarity(torch.cat([CAT_PICTURE, plane_picture]), WORD_FEATURES)
    expected = torch.tensor([[1.0, 0.92, 0.84, 0.5, 0.0], [0.0, 0.08, 0.16, 0.5, 1.0]])
    torch.testing.assert_close(similarity, expected)


def test_similarity_reaches_exactly_0_and_1_in_every_row():
    generator = torch.Generator().manual_seed(0)
    similarity = semantic_similarity(torch.randn(20, 7, generator=generator), torch.randn(50, 7, generator=generator))
    assert torch.equal(similarity.amax(dim=1), torch.ones(20))
    assert torch.equal(similarity.amin(dim=1), torch.zeros(20))


def test_words_that_cannot_be_told_apart_are_all_candidates():
    candidates = semantic_candidates(
        semantic_similarity(CAT_PICTURE, WORD_FEATURES[:1].expand(3, 2)), thresholds=(0.98,)
    )
    assert candidates.counts.tolist() == [[3]]


def test_the_papers_thresholds_give_more_words_to_finer_layers():
    candidates = semantic_candidates(semantic_similarity(CAT_PICTURE, WORD_FEATURES), thresholds=PAPER_THRESHOLDS)
    assert [words_of(candidates, layer) for layer in range(5)] == [
        ["cat"],
        ["cat"],
        ["cat", "kitten"],
        ["cat", "kitten"],
        ["cat", "kitten", "dog"],
    ]


def test_the_nearest_rule_gives_the_count_asked_for_or_the_whole_vocabulary():
    candidates = semantic_candidates(semantic_similarity(CAT_PICTURE, WORD_FEATURES), nearest=NEAREST_COUNTS[:3])
    assert [words_of(candidates, layer) for layer in range(3)] == [
        ["cat", "kitten", "dog"],
        list(WORDS),
        list(WORDS),
    ]


def test_equal_similarities_rank_by_code_index():
    candidates = semantic_candidates(torch.tensor([[0.5, 1.0, 0.5, 0.0, 1.0]]), nearest=(4,))
    assert candidates.ranked.tolist() == [[1, 4, 0, 2]]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "expected either thresholds or nearest"),
        ({"thresholds": (0.9,), "nearest": (3,)}, "expected either thresholds or nearest"),
        ({"thresholds": ()}, r"expected one value in \[0, 1\]"),
        ({"thresholds": (1.5,)}, r"expected one value in \[0, 1\]"),
        ({"nearest": (0,)}, "expected at least 1 word"),
    ],
)
def test_a_rule_that_leaves_no_candidates_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        semantic_candidates(torch.tensor([[1.0, 0.0]]), **rule)


def test_similarities_that_were_not_stretched_are_refused():
    with pytest.raises(ValueError, match=r"got at most 0\.3"):
        semantic_candidates(torch.tensor([[0.3, 0.1]]), thresholds=(0.9,))


def test_features_of_two_encoders_are_refused():
    with pytest.raises(ValueError, match="expected words of width 2, got 3"):
        semantic_similarity(CAT_PICTURE, torch.zeros(4, 3))


def test_candidates_are_drawn_uniformly_and_only_from_the_cells_own_picture():
    candidates = SemanticCandidates(ranked=torch.tensor([[10, 11, 12], [20, 21, 22]]), counts=torch.tensor([[2, 3]]))
    images = torch.arange(6000) % 2
    drawn = candidates.draw(0, images, torch.Generator().manual_seed(0))
    counts = {code: int((drawn == code).sum()) for code in drawn.unique().tolist()}
    assert set(counts) == {10, 11, 20, 21, 22}
    assert all(abs(counts[code] - 1500) < 150 for code in (10, 11))
    assert all(abs(counts[code] - 1000) < 130 for code in (20, 21, 22))
    assert (drawn[images == 0] < 20).all()


def made_up_batch() -> tuple[list[Tensor], list[Tensor], Tensor, SemanticCandidates]:
    """Two pictures, a layer of 1 cell and one of 4 cells each, 11 words of 3 dimensions."""
    generator = torch.Generator().manual_seed(5)
    targets = [torch.randn(2, 3, generator=generator), torch.randn(8, 3, generator=generator)]
    images = [torch.tensor([0, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])]
    codebook = torch.randn(11, 3, generator=generator)
    similarity = semantic_similarity(torch.randn(2, 4, generator=generator), torch.randn(11, 4, generator=generator))
    return targets, images, codebook, semantic_candidates(similarity, nearest=(2, 5))


@pytest.mark.parametrize("chunk_size", [1, 3, 256])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_the_loss_is_that_of_a_triple_loop(chunk_size, temperature):
    targets, images, codebook, candidates = made_up_batch()
    loss = semantic_guidance_loss(
        targets,
        images,
        codebook,
        candidates,
        temperature=temperature,
        max_cells=None,
        chunk_size=chunk_size,
        generator=torch.Generator().manual_seed(9),
    )
    draws = torch.Generator().manual_seed(9)
    layer_means = []
    for layer in range(2):
        chosen = candidates.draw(layer, images[layer], draws).tolist()
        total = 0.0
        for cell, z in enumerate(targets[layer].tolist()):
            logits = [-sum((a - b) ** 2 for a, b in zip(z, e, strict=True)) / temperature for e in codebook.tolist()]
            total -= logits[chosen[cell]] - math.log(sum(math.exp(x) for x in logits))
        layer_means.append(total / len(targets[layer]))
    assert loss.item() == pytest.approx(sum(layer_means) / 2, rel=1e-5)


def test_the_gradient_does_not_depend_on_the_chunks():
    gradients = []
    for chunk_size in (1, 256):
        targets, images, codebook, candidates = made_up_batch()
        targets[1].requires_grad_()
        codebook.requires_grad_()
        semantic_guidance_loss(
            targets,
            images,
            codebook,
            candidates,
            chunk_size=chunk_size,
            generator=torch.Generator().manual_seed(1),
        ).backward()
        assert targets[1].grad is not None
        assert codebook.grad is not None
        gradients.append(torch.cat([targets[1].grad, codebook.grad]))
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_sampling_cells_bounds_the_work_and_its_mean_is_the_full_loss():
    targets, images, codebook, candidates = made_up_batch()
    one_candidate = SemanticCandidates(ranked=candidates.ranked, counts=torch.ones(2, 2, dtype=torch.int64))
    full = semantic_guidance_loss(targets, images, codebook, one_candidate, max_cells=None)
    generator = torch.Generator().manual_seed(2)
    sampled = torch.stack(
        [
            semantic_guidance_loss(targets, images, codebook, one_candidate, max_cells=1, generator=generator)
            for _ in range(400)
        ]
    )
    assert sampled.std() > 0.1
    assert abs(float(sampled.mean() - full)) < 4 * float(sampled.std()) / 20


def test_descending_the_loss_makes_the_cells_say_a_candidate_word():
    targets, images, codebook, candidates = made_up_batch()
    moving = [target.clone().requires_grad_() for target in targets]
    optimizer = torch.optim.Adam(moving, lr=0.1)
    generator = torch.Generator().manual_seed(3)
    for _ in range(150):
        optimizer.zero_grad()
        semantic_guidance_loss(moving, images, codebook, candidates, temperature=0.1, generator=generator).backward()
        optimizer.step()
    for cell, image in enumerate(images[0].tolist()):
        word = int(torch.cdist(moving[0][cell : cell + 1].detach(), codebook).argmin())
        assert word in candidates.ranked[image, :2].tolist()


@pytest.mark.parametrize(
    ("num_targets", "num_images", "message"),
    [(0, 0, "got 0 and 0"), (2, 1, "got 2 and 1"), (3, 3, "1 to 2, got 3 and 3")],
)
def test_layers_without_indices_or_candidates_are_refused(num_targets, num_images, message):
    _, _, codebook, candidates = made_up_batch()
    targets, images = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=message):
        semantic_guidance_loss([targets] * num_targets, [images] * num_images, codebook, candidates)


def test_a_layer_without_cells_is_refused():
    _, _, codebook, candidates = made_up_batch()
    with pytest.raises(ValueError, match="layer 1: expected at least one target"):
        semantic_guidance_loss([torch.zeros(0, 3)], [torch.zeros(0, dtype=torch.int64)], codebook, candidates)

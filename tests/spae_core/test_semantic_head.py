"""Ranking against brute force, mixtures by their definition, and a head that learns a toy vocabulary from words."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spae_core.configs import RankedWordsConfig
from spae_core.semantic_head import (
    RankedWords,
    SemanticHead,
    choose_words,
    made_up_mixtures,
    train_semantic_head,
)


def directions(rows: int, columns: int, seed: int) -> Tensor:
    return normalize(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)), dim=1)


def ranked_list(queries: Tensor, table: Tensor, num_words: int) -> Tensor:
    """The same query for every cell."""
    return choose_words(queries[:, None].expand(-1, num_words, -1), table)


def test_cells_with_one_query_get_its_words_ranked_as_brute_force_ranks_them():
    queries, table = 2 * directions(20, 5, 0), torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    ranked = ranked_list(queries, table, 12)
    assert ranked.shape == (20, 12)
    for query, words in zip(queries.double(), ranked.tolist(), strict=True):
        distances = [(float(((query - entry) ** 2).sum()), index) for index, entry in enumerate(table.double())]
        assert words == [index for _, index in sorted(distances)[:12]]


def test_equal_distances_rank_in_the_order_of_the_codebook():
    table = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    assert ranked_list(torch.tensor([[2.0, 1.0], [0.0, 0.0]]), table, 5).tolist() == [
        [1, 4, 0, 2, 3],
        [0, 1, 2, 3, 4],
    ]


def test_each_cell_takes_the_nearest_word_that_none_before_it_took():
    queries, table = directions(60, 4, 8).view(6, 10, 4), directions(15, 4, 9)
    chosen = choose_words(queries, table)
    for cells, words in zip(queries.tolist(), chosen.tolist(), strict=True):
        free = list(range(15))
        for query, word in zip(cells, words, strict=True):
            nearest = min(free, key=lambda k: sum((a - b) ** 2 for a, b in zip(query, table[k].tolist(), strict=True)))
            assert word == nearest
            free.remove(nearest)


def test_the_head_gives_unit_vectors():
    vectors = SemanticHead(6, 10, 4)(torch.randn(7, 6))
    assert vectors.shape == (7, 4)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(7))


def naming_module(local_weight: float) -> RankedWords:
    torch.manual_seed(0)
    config = RankedWordsConfig(text_dim=6, hidden_dim=5, num_classes=7, local_weight=local_weight)
    module = RankedWords(config, embedding_dim=4)
    module.image_encoder.class_text_vectors.copy_(directions(7, 6, 2))
    with torch.no_grad():  # a random classifier's features are about 1e-8 and the biases all that counts
        module.image_encoder.classifier.bn2.weight.mul_(1e8)
    return module


def test_without_local_weight_a_picture_is_named_by_the_words_nearest_to_its_vector():
    module = naming_module(0.0)
    images, table = torch.rand(2, 3, 40, 40), directions(30, 4, 3)
    ranked = module(images, table, [(1, 1), (2, 2), (2, 2)])
    queries = module.head(module.image_encoder(images))
    distances = torch.cdist(queries.double(), table.double())
    assert torch.equal(ranked, distances.argsort(dim=1)[:, :9])


def test_with_local_weight_each_cell_is_named_by_its_own_region():
    module = naming_module(0.7)
    images, table = torch.rand(2, 3, 40, 40), directions(30, 4, 3)
    chosen = module(images, table, [(1, 1), (2, 2)])
    regions = module.image_encoder.local_probabilities(images, [(2, 2)], local_weight=0.7)
    for picture in range(2):
        first = module.head(module.image_encoder(images[picture : picture + 1]))[0]
        taken = [(table - first).square().sum(dim=1).argmin().item()]
        for region in regions[picture]:
            query = module.head(module.image_encoder.mix_class_texts(region[None]))[0]
            distances = (table - query).square().sum(dim=1)
            distances[taken] = torch.inf
            taken.append(distances.argmin().item())
        assert chosen[picture].tolist() == taken


def test_mixtures_are_unit_vectors_of_ten_classes_led_by_one():
    classes = torch.eye(30)
    mixtures = next(made_up_mixtures(classes, torch.Generator().manual_seed(0), 500))
    torch.testing.assert_close(mixtures.norm(dim=1), torch.ones(500))
    assert (mixtures >= 0).all()
    assert ((mixtures > 0).sum(dim=1) == 10).all()
    # The main class is favoured: it outweighs its nine neighbours together most of the time.
    assert (mixtures.amax(dim=1) > 0.7).float().mean() > 0.5
    assert len(mixtures.argmax(dim=1).unique()) == 30


def test_a_mixtures_neighbours_are_mostly_similar_classes():
    # Two groups of 12 classes that point almost the same way: neighbours come from the main class's own group.
    centres = torch.eye(2, 8).repeat_interleave(12, dim=0)
    classes = normalize(centres + 0.05 * torch.randn(24, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    mixtures = next(made_up_mixtures(classes, torch.Generator().manual_seed(2), 200))
    assert mixtures[:, :2].amax(dim=1).min() > 0.95


def test_mixtures_are_drawn_from_their_generator_alone():
    def batches(seed: int) -> list[Tensor]:
        mixtures = made_up_mixtures(directions(15, 6, 4), torch.Generator().manual_seed(seed), 5)
        return [next(mixtures) for _ in range(2)]

    first, again, other = batches(0), batches(0), batches(1)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def toy() -> tuple[Tensor, Tensor, Tensor]:
    """12 classes; 36 words, three around each class; a lookup space that is a rotation of the text space."""
    classes = directions(12, 8, 5)
    near = classes.repeat_interleave(3, dim=0)
    words = normalize(near + 0.1 * torch.randn(36, 8, generator=torch.Generator().manual_seed(6)), dim=1)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(7)))
    return classes, words, words @ rotation


def mean_rank(head: SemanticHead, classes: Tensor, words: Tensor, table: Tensor) -> float:
    """Mean place, from 0, of the three words nearest to a class in meaning; 1 is perfect, 17.5 chance."""
    right = (classes @ words.T).topk(3, dim=1).indices
    with torch.no_grad():
        ranked = ranked_list(head(classes), table, 36)
    places = [ranked[row].tolist().index(word) for row, near in enumerate(right.tolist()) for word in near]
    return sum(places) / len(places)


def test_training_brings_the_right_words_to_the_top():
    classes, words, table = toy()
    torch.manual_seed(0)
    head = SemanticHead(8, 32, 8)
    before = mean_rank(head, classes, words, table)
    losses = train_semantic_head(
        head, class_vectors=classes, word_vectors=words, table=table, num_steps=250, batch_size=32
    )
    assert len(losses) == 250
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    assert before > 10
    assert mean_rank(head, classes, words, table) < 2


def test_training_is_the_same_twice_and_another_with_another_seed():
    classes, words, table = toy()

    def trained(seed: int) -> list[float]:
        torch.manual_seed(0)
        head = SemanticHead(8, 16, 8)
        return train_semantic_head(
            head,
            class_vectors=classes,
            word_vectors=words,
            table=table,
            num_steps=5,
            batch_size=8,
            seed=seed,
        )

    assert trained(0) == trained(0) != trained(1)

"""Pictures to words and back with the tiny model: every prefix decodes, copies agree, wrong input is refused."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import preset
from spae_core.structs import TokenPyramid
from spae_core.tokenizer import SpaeTokenizer


def pictures(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def assert_same_tokens(first: TokenPyramid, second: TokenPyramid) -> None:
    assert all(torch.equal(*pair) for pair in zip(first.code_indices, second.code_indices, strict=True))


def test_a_picture_becomes_one_grid_of_indices_a_layer(tiny_tokenizer):
    pyramid = tiny_tokenizer.tokenize(pictures())
    assert [tuple(layer.shape) for layer in pyramid.code_indices] == [
        (3, 1, 1),
        (3, 2, 2),
        (3, 4, 4),
        (3, 4, 4),
    ]
    assert all(layer.dtype == torch.int64 for layer in pyramid.code_indices)
    flat = pyramid.flatten()
    assert flat.shape == (3, 37)
    assert flat.min() >= 0
    assert flat.max() < tiny_tokenizer.codebook.codebook_size
    assert len(flat.unique()) > 3
    assert pyramid.words(1) == [[tiny_tokenizer.codebook.words[row[0]]] for row in flat.tolist()]


def test_tokens_are_those_of_the_quantizer_and_lookup_gives_its_vectors(tiny_tokenizer):
    latents = tiny_tokenizer.encode(pictures())
    output = tiny_tokenizer.quantizer.quantize(latents)
    pyramid = tiny_tokenizer.tokenize(pictures())
    assert all(torch.equal(*pair) for pair in zip(pyramid.code_indices, output.code_indices, strict=True))
    looked_up = tiny_tokenizer.quantizer.lookup(pyramid.code_indices)
    torch.testing.assert_close(looked_up, output.quantized, atol=1e-6, rtol=0)
    decoded = tiny_tokenizer.decode(looked_up)
    assert torch.equal(tiny_tokenizer.detokenize(pyramid), decoded)


def test_every_prefix_of_layers_decodes_to_a_picture_of_its_own(tiny_tokenizer):
    pyramid = tiny_tokenizer.tokenize(pictures())
    decoded = [tiny_tokenizer.detokenize(pyramid, num_layers=depth) for depth in (1, 2, 3, 4)]
    for images in decoded:
        assert images.shape == (3, 3, 32, 32)
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1
    assert not any(torch.equal(coarse, fine) for coarse, fine in pairwise(decoded))
    assert torch.equal(tiny_tokenizer.detokenize(pyramid), decoded[-1])
    for depth in (1, 2, 3):
        part = TokenPyramid(code_indices=pyramid.code_indices[:depth], codebook=pyramid.codebook)
        assert torch.equal(tiny_tokenizer.detokenize(part), decoded[depth - 1])


def test_decoded_pictures_never_leave_the_range_of_pixels(tiny_tokenizer):
    images = tiny_tokenizer.decode(1000 * torch.randn(2, 8, 4, 4))
    assert images.min() == 0
    assert images.max() == 1


def test_a_picture_gets_the_same_tokens_alone_and_in_a_batch(tiny_tokenizer):
    together = tiny_tokenizer.tokenize(pictures(4)).flatten()
    again = tiny_tokenizer.tokenize(pictures(4).flip(0)).flatten().flip(0)
    assert torch.equal(together, again)
    alone = torch.cat([tiny_tokenizer.tokenize(picture[None]).flatten() for picture in pictures(4)])
    assert torch.equal(together, alone)


def test_a_loaded_copy_gives_identical_tokens_pictures_and_hashes(tiny_model_dir, tmp_path):
    loaded = SpaeTokenizer.from_pretrained(tiny_model_dir)
    loaded.save_pretrained(tmp_path / "copy")
    copy = SpaeTokenizer.from_pretrained(str(tmp_path / "copy"), device="cpu")
    assert not copy.training
    assert copy.config == loaded.config
    pyramid = loaded.tokenize(pictures())
    assert_same_tokens(pyramid, copy.tokenize(pictures()))
    assert torch.equal(loaded.detokenize(pyramid), copy.detokenize(copy.tokenize(pictures())))
    assert copy.model_sha256 == loaded.model_sha256
    assert copy.codebook_sha256 == loaded.codebook_sha256


def test_the_hash_of_a_model_is_the_same_before_and_after_saving(tiny_tokenizer, tiny_model_dir):
    assert SpaeTokenizer.from_pretrained(tiny_model_dir).model_sha256 == tiny_tokenizer.model_sha256


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 32, 16),
        torch.zeros(1, 3, 64, 64),
        torch.zeros(1, 1, 32, 32),
        torch.zeros(3, 32, 32),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(1, 3, 32, 32, dtype=torch.float64),
        torch.zeros(1, 3, 32, 32, dtype=torch.float16),
    ],
    ids=lambda images: f"{images.dtype} {tuple(images.shape)}",
)
def test_pictures_of_another_size_or_type_are_refused_with_both(tiny_tokenizer, images):
    with pytest.raises(ModelError, match=r"expected float.*\(B, 3, 32, 32\)") as caught:
        tiny_tokenizer.tokenize(images)
    assert f"got {images.dtype} {tuple(images.shape)}" in str(caught.value)


def test_tokens_of_another_codebook_are_refused_with_both_hashes(tiny_tokenizer, tiny_codebook):
    other = LexicalCodebook(
        embeddings=tiny_codebook.embeddings,
        token_ids=tiny_codebook.token_ids,
        words=tuple(reversed(tiny_codebook.words)),
        source="another",
    )
    pyramid = replace(tiny_tokenizer.tokenize(pictures(1)), codebook=other)
    with pytest.raises(ModelError, match=f"expected .*{tiny_codebook.sha256}, got {other.sha256}"):
        tiny_tokenizer.detokenize(pyramid)


@pytest.mark.parametrize(("present", "asked"), [(4, 0), (4, 5), (2, 3)])
def test_more_layers_than_there_are_cannot_be_decoded(tiny_tokenizer, present, asked):
    pyramid = tiny_tokenizer.tokenize(pictures(1))
    part = TokenPyramid(code_indices=pyramid.code_indices[:present], codebook=pyramid.codebook)
    with pytest.raises(ModelError, match=f"expected 1 to {present}, got {asked}"):
        tiny_tokenizer.detokenize(part, num_layers=asked)


def test_a_trained_projection_is_baked_into_the_saved_codebook(tiny_codebook, tmp_path):
    plain = preset("tiny")
    config = replace(plain, quantizer=replace(plain.quantizer, trainable_projection=True))
    torch.manual_seed(0)
    model = SpaeTokenizer(config, tiny_codebook).eval()
    with torch.no_grad():
        model.quantizer.projection.weight += 0.1 * torch.randn(8, 8)
    model.save_pretrained(tmp_path)
    loaded = SpaeTokenizer.from_pretrained(tmp_path)
    assert not loaded.config.quantizer.trainable_projection
    assert loaded.quantizer.projection is None
    assert (loaded.codebook.words, loaded.codebook.token_ids) == (tiny_codebook.words, tiny_codebook.token_ids)
    assert torch.equal(loaded.codebook.embeddings, model.quantizer.table().detach().half().float())
    assert model.baked().model_sha256 == loaded.model_sha256
    baked = model.baked()
    assert baked.baked() is baked
    assert not baked.training
    assert baked.codebook_sha256 == loaded.codebook_sha256
    # The networks are the same; the vectors differ by the rounding of float16 alone.
    expected = model.quantizer.quantize(model.encode(pictures())).quantized
    torch.testing.assert_close(
        baked.quantizer.quantize(baked.encode(pictures())).quantized, expected, atol=1e-3, rtol=0
    )


def test_a_model_without_a_semantic_head_fixes_no_words(tiny_tokenizer):
    assert tiny_tokenizer.given_words(pictures()) is None


def test_ranked_words_lie_in_raster_order_on_the_cells_of_their_layers(tiny_tokenizer):
    ranked = torch.stack([torch.arange(21), torch.arange(40, 61)])
    given = tiny_tokenizer.place_words(ranked)
    assert given.shape == (2, 4, 4, 4)
    quantizer = tiny_tokenizer.quantizer
    by_layer = [quantizer.subsampler.gather(given[:, layer], layer)[1].tolist() for layer in range(3)]
    assert by_layer[0] == [[40]]
    assert by_layer[1] == [[41, 42], [43, 44]]
    assert by_layer[2] == [[45, 46, 47, 48], [49, 50, 51, 52], [53, 54, 55, 56], [57, 58, 59, 60]]
    assert (given[:, 3] == -1).all()
    assert torch.equal(given >= 0, quantizer.subsampler.masks.expand(2, 4, 4, 4) & (given >= 0))
    assert (given >= 0).sum() == 2 * 21
    # A 4×4 grid's layer 1 is the cell (3, 3), counted from 1; layer 2 the cells 2 and 4 of each axis.
    assert given[0, 0, 2, 2] == 0
    assert [given[0, 1, row, column].item() for row in (1, 3) for column in (1, 3)] == [1, 2, 3, 4]


def test_the_first_layers_are_the_semantic_heads_list_and_the_rest_aims_at_the_latent(naming_tokenizer):
    model, images = naming_tokenizer, torch.stack([pictures(1)[0], torch.zeros(3, 32, 32)])
    with torch.inference_mode():
        queries = model.ranked_words.head(model.ranked_words.image_encoder(images))
    distances = (queries[:, None] - model.codebook.embeddings[None]).square().sum(dim=2)
    by_hand = distances.argsort(dim=1, stable=True)[:, :21]
    pyramid = model.tokenize(images)
    assert torch.equal(pyramid.flatten()[:, :21], by_hand)
    assert torch.equal(model.rank_words(images), by_hand)
    assert all(len(set(words)) == 21 for words in by_hand.tolist())
    assert not torch.equal(by_hand[0], by_hand[1])
    given = model.place_words(by_hand)
    with torch.inference_mode():
        last = model.quantizer.assign(model.encode(images), given=given).indices[:, 3]
    assert torch.equal(pyramid.code_indices[3], last)
    free = model.quantizer.quantize(model.encode(images)).code_indices
    assert not torch.equal(free[3], pyramid.code_indices[3])


def test_a_model_with_a_semantic_head_comes_back_from_disk_with_it(naming_tokenizer, tmp_path):
    naming_tokenizer.save_pretrained(tmp_path)
    loaded = SpaeTokenizer.from_pretrained(tmp_path)
    assert loaded.config == naming_tokenizer.config
    assert loaded.model_sha256 == naming_tokenizer.model_sha256
    loaded.save_pretrained(tmp_path / "again")
    again = SpaeTokenizer.from_pretrained(tmp_path / "again")
    assert_same_tokens(loaded.tokenize(pictures(2)), again.tokenize(pictures(2)))


def on_a_falling_spectrum(model: SpaeTokenizer, **changes: object) -> SpaeTokenizer:
    quantizer = replace(model.config.quantizer, axis_decay=1.0, **changes)
    torch.manual_seed(2)
    other = SpaeTokenizer(replace(model.config, quantizer=quantizer), model.codebook).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    return other


def test_words_are_ranked_in_the_codebooks_own_space_and_matched_in_the_scaled_one(naming_tokenizer):
    scaled = on_a_falling_spectrum(naming_tokenizer)
    assert torch.equal(scaled.word_vectors, naming_tokenizer.codebook.embeddings)
    assert not torch.equal(scaled.word_vectors, scaled.quantizer.table())
    plain, other = naming_tokenizer.tokenize(pictures()), scaled.tokenize(pictures())
    assert torch.equal(plain.flatten()[:, :21], other.flatten()[:, :21])
    assert not torch.equal(plain.code_indices[3], other.code_indices[3])
    assert "word_vectors" not in scaled.state_dict()


@pytest.mark.parametrize("trainable_projection", [False, True])
def test_a_falling_spectrum_is_applied_once_however_often_a_model_is_saved(
    tiny_tokenizer, tmp_path, trainable_projection
):
    model = on_a_falling_spectrum(tiny_tokenizer, trainable_projection=trainable_projection)
    table = model.quantizer.table().detach()
    model.save_pretrained(tmp_path / "1")
    SpaeTokenizer.from_pretrained(tmp_path / "1").save_pretrained(tmp_path / "2")
    again = SpaeTokenizer.from_pretrained(tmp_path / "2")
    assert again.config.quantizer.axis_decay == (0 if trainable_projection else 1)
    torch.testing.assert_close(again.quantizer.table(), table, atol=1e-3, rtol=0)
    assert (table.norm(dim=0)[0] / table.norm(dim=0)[-1]) > 2


def test_a_model_with_head_and_projection_keeps_its_codebook_when_saved(naming_tokenizer, tmp_path):
    model = on_a_falling_spectrum(naming_tokenizer, trainable_projection=True)
    assert model.baked() is model
    model.save_pretrained(tmp_path)
    loaded = SpaeTokenizer.from_pretrained(tmp_path)
    assert loaded.codebook_sha256 == naming_tokenizer.codebook_sha256
    torch.testing.assert_close(loaded.quantizer.table(), model.quantizer.table(), atol=1e-2, rtol=0)

"""The first latents of a matched encoder have the codebook's mean and covariance."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.matched_start import match_latents_to_codebook
from spae_core.presets import preset
from spae_core.tokenizer import SpaeTokenizer


def model_of(vectors: Tensor, **changes: object) -> SpaeTokenizer:
    size = len(vectors)
    codebook = LexicalCodebook(
        embeddings=vectors,
        token_ids=tuple(range(size)),
        words=tuple(map(str, range(size))),
        source="made up",
    )
    torch.manual_seed(0)
    config = replace(preset("tiny"), embedding_dim=vectors.shape[1], **changes)
    return SpaeTokenizer(config, codebook)


def uneven_codebook() -> Tensor:
    """A mean far from 0 and axes of different variance that are not the coordinate axes."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(4, 4, generator=generator)
    return torch.randn(64, 4, generator=generator) @ mixing + torch.tensor([3.0, -1.0, 0.0, 2.0])


def pictures(count: int = 32) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows.detach().double()
    return rows.mean(dim=0), torch.cov(rows.T, correction=0)


def test_latents_get_the_mean_and_covariance_of_the_codebook():
    model = model_of(uneven_codebook())
    before = moments(model.encode(pictures()).movedim(1, -1).flatten(0, 2))
    match_latents_to_codebook(model, pictures())
    mean, covariance = moments(model.encode(pictures()).movedim(1, -1).flatten(0, 2))
    wanted_mean, wanted_covariance = moments(model.codebook.embeddings)
    assert (before[1] - wanted_covariance).abs().max() > 0.5
    torch.testing.assert_close(mean, wanted_mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(covariance, wanted_covariance, atol=1e-2, rtol=0)


def test_a_matched_encoder_uses_more_words_than_a_random_one():
    vectors = normalize(torch.randn(64, 8, generator=torch.Generator().manual_seed(3)), dim=1)
    model = model_of(vectors)
    before = len(model.tokenize(pictures()).flatten().unique())
    match_latents_to_codebook(model, pictures())
    assert len(model.tokenize(pictures()).flatten().unique()) > max(before, 50)


def test_a_trained_projection_is_matched_in_its_own_space():
    quantizer = replace(preset("tiny").quantizer, trainable_projection=True)
    vectors = torch.randn(64, 4, generator=torch.Generator().manual_seed(4)) + 1
    model = model_of(vectors, quantizer=quantizer)
    match_latents_to_codebook(model, pictures())
    mean, covariance = moments(model.encode(pictures()).movedim(1, -1).flatten(0, 2))
    wanted_mean, wanted_covariance = moments(model.quantizer.table())
    torch.testing.assert_close(mean, wanted_mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(covariance, wanted_covariance, atol=1e-2, rtol=0)


@pytest.mark.parametrize("side", [16, 32])
def test_windows_are_matched_with_their_own_ownership(side):
    model = model_of(uneven_codebook(), ownership_embedding=True)
    with torch.no_grad():
        model.encoder.ownership.vectors.weight.normal_(generator=torch.Generator().manual_seed(5))
    cells = side // 8
    owner = torch.randint(3, (32, cells, cells), generator=torch.Generator().manual_seed(6))
    images = pictures()[:, :, :side, :side]
    match_latents_to_codebook(model, images, owner)
    latents = model.encoder(images, owner).movedim(1, -1).flatten(0, 2)
    mean, covariance = moments(latents)
    wanted_mean, wanted_covariance = moments(model.codebook.embeddings)
    torch.testing.assert_close(mean, wanted_mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(covariance, wanted_covariance, atol=1e-2, rtol=0)


def test_only_the_last_convolution_is_changed():
    model = model_of(uneven_codebook())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    match_latents_to_codebook(model, pictures())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"encoder.to_latents.weight", "encoder.to_latents.bias"}


def test_fewer_cells_than_dimensions_are_refused():
    model = model_of(normalize(torch.randn(64, 20, generator=torch.Generator().manual_seed(3)), dim=1))
    match_latents_to_codebook(model, pictures(2))
    with pytest.raises(ModelError, match=r"matched_start: expected at least 20 cells .*got 16\. Raise batch_size"):
        match_latents_to_codebook(model, pictures(1))


def test_with_linear_paths_the_autoencoder_begins_as_principal_components():
    tiny = preset("tiny")
    halves = {name: replace(getattr(tiny, name), linear_path=True) for name in ("encoder", "decoder")}
    model = model_of(uneven_codebook(), **halves)
    # Smooth pictures, which four components a cell can hold; noise they cannot.
    generator = torch.Generator().manual_seed(6)
    images = torch.nn.functional.interpolate(
        torch.rand(32, 3, 2, 2, generator=generator), size=(32, 32), mode="bilinear", align_corners=True
    )
    match_latents_to_codebook(model, images)
    with torch.no_grad():
        latents = model.encode(images)
        decoded = model.decoder(latents, model.quantizer.subsampler.first_owner)
    mean, covariance = moments(latents.movedim(1, -1).flatten(0, 2))
    wanted_mean, wanted_covariance = moments(model.codebook.embeddings)
    torch.testing.assert_close(mean, wanted_mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(covariance, wanted_covariance, atol=1e-2, rtol=0)
    # Principal components by hand, four of the 192 numbers of an 8×8 cell.
    cells = torch.nn.functional.pixel_unshuffle(images, 8).movedim(1, -1).flatten(0, 2)
    centred = cells - cells.mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    by_hand = centred @ axes[:4].T @ axes[:4]
    got = torch.nn.functional.pixel_unshuffle(decoded, 8).movedim(1, -1).flatten(0, 2)
    assert (by_hand - centred).square().mean() < 0.2 * centred.square().mean()
    # About the mean cell: a transposed convolution has one bias a colour and not one a pixel.
    torch.testing.assert_close(got - got.mean(dim=0), by_hand, atol=1e-3, rtol=0)
    assert (got.mean(dim=0) - cells.mean(dim=0)).abs().max() < 0.1

"""Reconstruction and codebook metrics against hand numbers and other libraries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from spae_core.metrics import (
    LayerCodeStatistics,
    code_counts,
    codebook_perplexity,
    codebook_usage,
    psnr_db,
    ssim,
)


def test_psnr_of_a_constant_error_by_hand():
    targets = torch.full((2, 3, 4, 4), 0.5)
    images = targets.clone()
    images[0] += 0.1  # mean squared error .01: 20 dB
    images[1] += 0.01  # .0001: 40 dB
    torch.testing.assert_close(psnr_db(images, targets), torch.tensor([20.0, 40.0]), rtol=1e-4, atol=0.0)


def test_psnr_of_equal_images_is_100_and_values_outside_the_range_count_as_its_ends():
    white = torch.ones(1, 3, 4, 4)
    assert psnr_db(white, white).item() == pytest.approx(100.0)
    assert psnr_db(white + 3.0, white).item() == pytest.approx(100.0)
    assert psnr_db(white, torch.zeros_like(white)).item() == pytest.approx(0.0)


def test_ssim_agrees_with_scikit_image():
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(2, 3, 32, 40, generator=generator)
    images = (targets + 0.2 * torch.randn(targets.shape, generator=generator)).clamp(0, 1)
    expected = [
        structural_similarity(
            image.numpy(),
            target.numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for image, target in zip(images, targets, strict=True)
    ]
    torch.testing.assert_close(ssim(images, targets), torch.tensor(expected).float(), atol=1e-5, rtol=0.0)


def test_ssim_is_one_for_equal_images_and_a_vector_for_one_image():
    image = torch.rand(1, 3, 16, 16)
    assert ssim(image, image).shape == (1,)
    assert ssim(image, image).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("metric", [psnr_db, ssim])
def test_images_of_different_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"got \(1, 3, 16, 16\) and \(2, 3, 16, 16\)"):
        metric(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 px a side, got 8×16"):
        ssim(torch.zeros(1, 3, 8, 16), torch.zeros(1, 3, 8, 16))


def test_counts_usage_and_perplexity_by_hand():
    counts = code_counts(torch.tensor([[0, 0], [3, 3]]), codebook_size=8)
    assert counts.tolist() == [2, 0, 0, 2, 0, 0, 0, 0]
    assert codebook_usage(counts) == 0.25
    assert codebook_perplexity(counts) == pytest.approx(2.0)
    uneven = torch.tensor([3, 1])
    assert codebook_perplexity(uneven) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_perplexity_lies_between_one_and_the_number_of_codes_in_use(code_indices):
    counts = code_counts(torch.tensor(code_indices), codebook_size=10)
    in_use = len(set(code_indices))
    assert 1.0 - 1e-9 <= codebook_perplexity(counts) <= in_use + 1e-9
    assert codebook_usage(counts) == pytest.approx(in_use / 10)


def test_perplexity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="expected at least one counted code"):
        codebook_perplexity(torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_the_codebook_is_refused(index):
    with pytest.raises(ValueError, match=r"expected values in \[0, 4\)"):
        code_counts(torch.tensor([0, index]), codebook_size=4)


def test_layer_statistics_do_not_depend_on_the_batches():
    generator = torch.Generator().manual_seed(0)
    layers = [
        torch.randint(0, 6, (8, 2, 2), generator=generator),
        torch.randint(0, 3, (8, 4, 4), generator=generator),
    ]
    whole = LayerCodeStatistics(num_layers=2, codebook_size=6)
    whole.update(layers)
    batched = LayerCodeStatistics(num_layers=2, codebook_size=6)
    for start in (0, 3, 6):
        batched.update([layer[start : start + 3] for layer in layers])
    assert torch.equal(whole.counts, batched.counts)
    assert whole.perplexity() == tuple(codebook_perplexity(code_counts(layer, 6)) for layer in layers)
    assert whole.usage()[1] <= 0.5
    whole.reset()
    assert whole.usage() == (0.0, 0.0)


def test_layer_statistics_refuse_half_a_pyramid():
    with pytest.raises(ValueError, match="each of 3 layers, got 1"):
        LayerCodeStatistics(num_layers=3, codebook_size=4).update([torch.zeros(1, dtype=torch.int64)])

"""Quantization against a triple loop written from the paper, exact to the bit; and what holds for any codebook."""

import numpy as np
import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from quantizer_reference import GRIDS, KINDS, codebook_of, on_the_lattice, owns, quantizer_of, triple_loop
from torch import Tensor

from spae_core.configs import PyramidConfig, QuantizerConfig
from spae_core.errors import ModelError
from spae_core.presets import preset
from spae_core.quantizer import StreamingAverageQuantizer


def assert_agrees(latents: Tensor, embeddings: Tensor, grids: tuple[tuple[int, int], ...], kind: str) -> None:
    reference = triple_loop(latents, embeddings, grids, kind)
    quantizer = quantizer_of(grids, embeddings, kind=kind)
    for depth in range(1, len(grids) + 1):
        assignment = quantizer.assign(latents, num_layers=depth)
        assert np.array_equal(assignment.indices[:, :depth].numpy(), reference.indices[:, :depth])
        assert (assignment.indices[:, depth:] == -1).all()
        expected = reference.prefixes[:, depth - 1]
        owned = ~np.isnan(expected)
        assert np.array_equal(assignment.quantized.numpy()[owned], expected[owned])
        assert not assignment.quantized.isnan().any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_every_index_and_vector_of_every_prefix_is_that_of_the_triple_loop(grids, kind):
    latents, embeddings = on_the_lattice((2, 5, *grids[-1]), 0), on_the_lattice((23, 5), 1)
    assert_agrees(latents, embeddings, grids, kind)


@st.composite
def pyramids(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    height, width = draw(st.sampled_from((1, 2, 3, 4, 6, 8))), draw(st.sampled_from((1, 2, 4, 6, 9)))
    depth = draw(st.integers(1, 5))

    def axis(size: int) -> list[int]:
        divisors = [count for count in range(1, size + 1) if size % count == 0]
        return [*sorted(draw(st.sampled_from(divisors)) for _ in range(depth - 1)), size]

    return tuple(zip(axis(height), axis(width), strict=True))


@settings(deadline=None, max_examples=40)
@hypothesis_given(
    grids=pyramids(),
    kind=st.sampled_from(KINDS),
    size=st.integers(1, 12),
    channels=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_any_pyramid_codebook_and_latents_agree_with_the_triple_loop(grids, kind, size, channels, seed):
    latents = on_the_lattice((2, channels, *grids[-1]), seed)
    assert_agrees(latents, on_the_lattice((size, channels), seed + 1), grids, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_random_vectors_agree_with_the_triple_loop_too(kind):
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 8, 16, 16, generator=generator)
    embeddings = torch.randn(100, 8, generator=generator).half().float()
    grids = preset("spae-b-128").pyramid.layer_grids
    reference = triple_loop(latents, embeddings, grids, kind)
    assignment = quantizer_of(grids, embeddings, kind=kind).assign(latents)
    assert np.array_equal(assignment.indices.numpy(), reference.indices)
    np.testing.assert_allclose(assignment.quantized.numpy(), reference.prefixes[:, -1], atol=1e-6)
    for target, expected in zip(assignment.layer_targets, reference.targets, strict=True):
        np.testing.assert_allclose(target.numpy(), expected, atol=1e-5)


def test_layer_targets_lie_in_the_order_of_their_cells():
    grids = GRIDS["wide"]
    latents, embeddings = on_the_lattice((3, 4, *grids[-1]), 4), on_the_lattice((9, 4), 5)
    reference = triple_loop(latents, embeddings, grids, "saq")
    assignment = quantizer_of(grids, embeddings).assign(latents)
    for layer, (target, cells) in enumerate(zip(assignment.layer_targets, assignment.layer_cells, strict=True)):
        assert np.array_equal(target.numpy(), np.array(reference.targets[layer], np.float32))
        expected = [
            [image, row, column]
            for image in range(3)
            for row in range(grids[-1][0])
            for column in range(grids[-1][1])
            if owns(grids, layer, row + 1, column + 1)
        ]
        assert cells.tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_given_entries_are_kept_and_the_later_layers_aim_at_what_they_miss(kind):
    grids = GRIDS["tiny"]
    latents, embeddings = on_the_lattice((2, 4, 4, 4), 6), on_the_lattice((15, 4), 7)
    generator = torch.Generator().manual_seed(8)
    fixed = torch.randint(-8, 15, (2, 4, 4, 4), generator=generator).clamp_min(-1)
    assert (fixed >= 0).any()
    assert (fixed < 0).any()
    reference = triple_loop(latents, embeddings, grids, kind, fixed)
    assignment = quantizer_of(grids, embeddings, kind=kind).assign(latents, given=fixed)
    assert np.array_equal(assignment.indices.numpy(), reference.indices)
    assert np.array_equal(assignment.quantized.numpy(), reference.prefixes[:, -1])
    free = quantizer_of(grids, embeddings, kind=kind).assign(latents)
    assert not torch.equal(free.indices, assignment.indices)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_window_with_its_masks_is_the_slice_of_the_whole(kind, size):
    grids = GRIDS["spae-b-128"]
    latents, embeddings = on_the_lattice((4, 5, 16, 16), 9), on_the_lattice((20, 5), 10)
    quantizer = quantizer_of(grids, embeddings, kind=kind)
    whole = quantizer.assign(latents)
    corners = [(0, 0), (5, 8), (16 - size, 16 - size), (8, 8 - size // 2)]
    slices = [(slice(top, top + size), slice(left, left + size)) for top, left in corners]
    window = quantizer.assign(
        torch.stack([latents[image][:, *cut] for image, cut in enumerate(slices)]),
        masks=torch.stack([quantizer.subsampler.masks[:, *cut] for cut in slices]),
    )
    for image, cut in enumerate(slices):
        assert torch.equal(window.indices[image], whole.indices[image][:, *cut])
        assert torch.equal(window.quantized[image], whole.quantized[image][:, *cut])


def error_by_layer(kind: str) -> list[float]:
    """Mean ‖zq_{≤l} − z‖ / ‖z‖ of random directions, V 4096, C 16, six 16×16 layers."""
    generator = torch.Generator().manual_seed(0)
    entries, latents = (
        torch.nn.functional.normalize(torch.randn(rows, 16, generator=generator), dim=1) for rows in (4096, 512)
    )
    latents = latents.view(2, 16, 16, 16).permute(0, 3, 1, 2)
    quantizer = quantizer_of(((16, 16),) * 6, entries, kind=kind)
    return [
        (quantizer.assign(latents, num_layers=depth).quantized - latents).norm(dim=1).mean().item()
        for depth in range(1, 7)
    ]


def test_the_error_of_the_mean_falls_with_depth_where_residual_quantization_stalls():
    averaged, residual = error_by_layer("saq"), error_by_layer("residual")
    assert averaged == sorted(averaged, reverse=True)
    assert averaged[0] == residual[0] == pytest.approx(0.677, abs=0.01)
    assert averaged[-1] == pytest.approx(0.342, abs=0.01)
    assert all(error == pytest.approx(0.65, abs=0.015) for error in residual[1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_looking_tokens_up_gives_what_was_quantized_for_every_prefix(grids, kind):
    latents, embeddings = on_the_lattice((2, 5, *grids[-1]), 18) + 0.1, on_the_lattice((23, 5), 19)
    quantizer = quantizer_of(grids, embeddings, kind=kind)
    code_indices = quantizer.quantize(latents).code_indices
    for depth, grid in enumerate(grids, start=1):
        assert code_indices[depth - 1].shape == (2, *grid)
        assert code_indices[depth - 1].dtype == torch.int64
        quantized = quantizer.assign(latents, num_layers=depth).quantized
        assert torch.equal(quantizer.lookup(code_indices, depth), quantized)
        assert torch.equal(quantizer.lookup(code_indices[:depth]), quantized)


def test_shifting_latents_and_codebook_together_changes_no_token():
    latents, embeddings = on_the_lattice((1, 3, 4, 4), 20), on_the_lattice((12, 3), 21)
    shift = torch.tensor([2.0, -1.5, 0.25])
    plain = quantizer_of(GRIDS["tiny"], embeddings).assign(latents)
    shifted = quantizer_of(GRIDS["tiny"], embeddings + shift).assign(latents + shift[:, None, None])
    assert torch.equal(plain.indices, shifted.indices)


def test_misfits_are_refused_with_both_values():
    quantizer = quantizer_of(GRIDS["tiny"], on_the_lattice((10, 4), 0))
    with pytest.raises(ValueError, match=r"expected \(B, 4, 4, 4\), got \(1, 5, 4, 4\)"):
        quantizer.quantize(torch.zeros(1, 5, 4, 4))
    with pytest.raises(ValueError, match=r"expected \(B, 4, 4, 4\), got \(1, 4, 4, 8\)"):
        quantizer.quantize(torch.zeros(1, 4, 4, 8))
    for num_layers in (0, 5):
        with pytest.raises(ModelError, match=f"expected 1 to 4, got {num_layers}"):
            quantizer.assign(torch.zeros(1, 4, 4, 4), num_layers=num_layers)
    with pytest.raises(ModelError, match=r"expected embedding_dim 8 as the model has, got 4"):
        StreamingAverageQuantizer(QuantizerConfig(), PyramidConfig(), codebook_of(on_the_lattice((10, 4), 0)), 8)

"""Quantization against a triple loop over images, cells and layers written from the paper, exact to the bit.

Latents and entries lie on a lattice of quarters, so that every sum and distance is exact in float32: the loops and
the quantizer must agree on every index, ties included, and on every quantized number.

Letters: B batch, C embedding_dim, H×W latent grid, D number of layers, V codebook size.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from spae_core.configs import PyramidConfig, QuantizerConfig
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import PRESETS, preset
from spae_core.quantizer import StreamingAverageQuantizer

GRIDS = {
    **{name: preset(name).pyramid.layer_grids for name in PRESETS},
    "wide": ((1, 2), (2, 2), (2, 8), (4, 8), (4, 8)),
    "by three": ((1, 1), (3, 3), (3, 9), (9, 9)),
    "tall and late": ((2, 1), (2, 3), (6, 3)),
}
KINDS = ("saq", "residual")


def codebook_of(embeddings: Tensor) -> LexicalCodebook:
    size = len(embeddings)
    return LexicalCodebook(
        embeddings=embeddings,
        token_ids=tuple(range(size)),
        words=tuple(f"word{index}" for index in range(size)),
        source="made up",
    )


def quantizer_of(
    grids: tuple[tuple[int, int], ...], embeddings: Tensor, **options: object
) -> StreamingAverageQuantizer:
    config, pyramid = QuantizerConfig(**options), PyramidConfig(layer_grids=grids)
    return StreamingAverageQuantizer(config, pyramid, codebook_of(embeddings), embeddings.shape[1])


def on_the_lattice(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(-12, 13, shape, generator=torch.Generator().manual_seed(seed)) / 4


@dataclass
class Reference:
    """What the loops give; −1 and NaN where a layer or a prefix owns nothing."""

    indices: NDArray[np.int64]  # (B, D, H, W)
    prefixes: NDArray[np.float32]  # (B, D, C, H, W), zq_{≤l}
    targets: list[list[NDArray[np.float64]]]  # of each layer, its z_l in (B, H, W) order


def owns(grids: tuple[tuple[int, int], ...], layer: int, row: int, column: int) -> bool:
    """Whether layer (from 0) owns the cell (from 1): h'·i − ceil(h'/2) + 1 for some i, and the same for columns."""
    h, w = grids[-1][0] // grids[layer][0], grids[-1][1] // grids[layer][1]
    rows = {h * i - ceil(h / 2) + 1 for i in range(1, grids[layer][0] + 1)}
    columns = {w * j - ceil(w / 2) + 1 for j in range(1, grids[layer][1] + 1)}
    return row in rows and column in columns


def triple_loop(
    latents: Tensor,
    embeddings: Tensor,
    grids: tuple[tuple[int, int], ...],
    kind: str,
    fixed: Tensor | None = None,
) -> Reference:
    """z_l = z + Σ_{i<l} m_i (z − e(k_i)), k_l = argmin ‖z_l − e(k)‖², zq_{≤l} = Σ m_i e(k_i) / Σ m_i.

    Residual: r_l = z − Σ_{i<l} m_i e(k_i), zq_{≤l} = Σ m_i e(k_i). `fixed` entries of 0 or more are taken as given.
    """
    batch, channels, height, width = latents.shape
    depth = len(grids)
    entries = embeddings.double().numpy()
    indices = np.full((batch, depth, height, width), -1)
    prefixes = np.full((batch, depth, channels, height, width), np.nan, np.float32)
    targets: list[list[NDArray[np.float64]]] = [[] for _ in range(depth)]
    for image in range(batch):
        for row in range(height):
            for column in range(width):
                z = latents[image, :, row, column].double().numpy()
                chosen: list[NDArray[np.float64]] = []
                for layer in range(depth):
                    if owns(grids, layer, row + 1, column + 1):
                        missed = sum((z - entry for entry in chosen), np.zeros(channels))
                        target = z + missed if kind == "saq" else z - sum(chosen)
                        index = int(((target - entries) ** 2).sum(axis=1).argmin())
                        if fixed is not None and fixed[image, layer, row, column] >= 0:
                            index = int(fixed[image, layer, row, column])
                        indices[image, layer, row, column] = index
                        chosen.append(entries[index])
                        targets[layer].append(target)
                    if chosen:
                        total = np.sum(chosen, axis=0).astype(np.float32)
                        combined = total / np.float32(len(chosen)) if kind == "saq" else total
                        prefixes[image, layer, :, row, column] = combined
    return Reference(indices, prefixes, targets)


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_commitment_loss_and_its_gradient_are_those_of_loops(kind, reduction):
    grids, beta = GRIDS["tiny"], 0.25
    latents, embeddings = on_the_lattice((2, 4, 4, 4), 11).requires_grad_(), on_the_lattice((10, 4), 12)
    reference = triple_loop(latents.detach(), embeddings, grids, kind)
    expected, slope = 0.0, np.zeros(latents.shape)
    for layer in range(len(grids)):
        misses = latents.detach().numpy() - reference.prefixes[:, layer]  # NaN where nothing is owned yet
        num_cells = int((~np.isnan(misses[:, 0])).sum())
        share = beta / num_cells / (1 if reduction == "sum" else 4)
        expected += share * np.nansum(misses.astype(np.float64) ** 2)
        slope += 2 * share * np.nan_to_num(misses)
    options = {"kind": kind, "commitment_weight": beta, "commitment_reduction": reduction}
    assignment = quantizer_of(grids, embeddings, **options).assign(latents)
    assert assignment.commitment_loss.item() == pytest.approx(expected, rel=1e-5)
    assert assignment.codebook_loss.item() == 0
    assignment.commitment_loss.backward()
    np.testing.assert_allclose(latents.grad.numpy(), slope, atol=1e-6)


def test_cells_that_hold_only_given_words_are_left_out_of_the_commitment_loss():
    embeddings = torch.tensor([[0.0], [1.0]])
    quantizer = quantizer_of(((1, 1), (2, 1)), embeddings, commitment_weight=1.0)
    # Layer 1 owns the lower cell only. Its given word 0 misses 1 by 1: not counted. Layer 2 finds 1 for the upper
    # cell (missing .25) and, for the lower, 1 + (1 − 0) = 2 -> word 1, mean .5, missing .5.
    latents = torch.tensor([0.75, 1.0]).view(1, 1, 2, 1)
    fixed = torch.tensor([[-1, 0], [-1, -1]]).view(1, 2, 2, 1)
    assignment = quantizer.assign(latents, given=fixed)
    assert assignment.indices.flatten().tolist() == [-1, 0, 1, 1]
    assert assignment.commitment_loss.item() == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert quantizer.assign(latents, given=fixed, num_layers=1).commitment_loss.item() == 0


def test_gradients_pass_straight_through_to_the_latents():
    latents = on_the_lattice((1, 4, 4, 4), 13).requires_grad_()
    output = quantizer_of(GRIDS["tiny"], on_the_lattice((10, 4), 14)).quantize(latents)
    weights = on_the_lattice((1, 4, 4, 4), 15)
    (output.quantized * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_a_layers_target_moves_with_the_latent_as_many_times_as_the_cell_has_tokens():
    # z_l = (n + 1) z − Σ e: after n earlier tokens its slope in z is n + 1; residual quantization's is 1.
    for kind, slopes in (("saq", {1.0, 2.0}), ("residual", {1.0})):
        latents = on_the_lattice((1, 2, 4, 4), 16).requires_grad_()
        assignment = quantizer_of(GRIDS["tiny"], on_the_lattice((10, 2), 17), kind=kind).assign(latents)
        assignment.layer_targets[2].sum().backward()
        assert set(latents.grad.flatten().tolist()) == slopes


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


def test_a_trained_projection_is_searched_and_gets_the_gradient_of_the_codebook_loss():
    embeddings = torch.randn(30, 6, generator=torch.Generator().manual_seed(22))
    quantizer = StreamingAverageQuantizer(
        QuantizerConfig(trainable_projection=True),
        PyramidConfig(layer_grids=((1, 1), (2, 2))),
        codebook_of(embeddings),
        3,
    )
    table = quantizer.table()
    assert table.shape == (30, 3)
    torch.testing.assert_close(table.norm(dim=1), torch.ones(30))
    stored = embeddings.half().float()
    by_hand = (stored - stored.mean(dim=0)) @ quantizer.projection.weight.T
    # It starts as PCA: uncorrelated coordinates of variance 1.
    torch.testing.assert_close(by_hand.T @ by_hand / 30, torch.eye(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(table, torch.nn.functional.normalize(by_hand, dim=1))
    latents = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(23)).requires_grad_()
    assignment = quantizer.assign(latents)
    assert assignment.codebook_loss > 0
    # The codebook loss moves the entries alone, the commitment loss the latents alone.
    assignment.codebook_loss.backward(retain_graph=True)
    assert latents.grad is None
    assert quantizer.projection.weight.grad.abs().max() > 0
    quantizer.projection.weight.grad = None
    assignment.commitment_loss.backward()
    assert latents.grad.abs().max() > 0
    assert quantizer.projection.weight.grad is None


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

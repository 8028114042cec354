"""The pyramid's cells against the numbers of the paper and against spae.md's formula, cell by cell."""

from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spae_core.configs import IMAGE_LAYER_GRIDS, PyramidConfig
from spae_core.presets import PRESETS, preset
from spae_core.pyramid import DilationSubsampler, dilated_positions

GRIDS = {
    **{name: preset(name).pyramid.layer_grids for name in PRESETS},
    "wide": ((1, 2), (2, 2), (2, 8), (4, 8)),
    "by three": ((1, 1), (3, 3), (3, 9), (9, 9), (9, 9)),
    "one layer": ((3, 5),),
    "late": ((2, 1), (2, 3), (6, 6)),
}


@st.composite
def layer_grids(draw: st.DrawFn, largest: int = 12) -> tuple[tuple[int, int], ...]:
    """Monotone layers that divide the last one."""
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    depth = draw(st.integers(1, 5))

    def axis(size: int) -> list[int]:
        divisors = [count for count in range(1, size + 1) if size % count == 0]
        return [*sorted(draw(st.sampled_from(divisors)) for _ in range(depth - 1)), size]

    return tuple(zip(axis(height), axis(width), strict=True))


def owned_cells(grids: tuple[tuple[int, int], ...], layer: int) -> list[tuple[int, int]]:
    """P(l) = {(h'·i − ceil(h'/2) + 1, w'·j − ceil(w'/2) + 1)}, counted from 1, in raster order."""
    height, width = grids[-1]
    rows, columns = grids[layer]
    h, w = height // rows, width // columns
    return [
        (h * i - ceil(h / 2) + 1, w * j - ceil(w / 2) + 1) for i in range(1, rows + 1) for j in range(1, columns + 1)
    ]


def masks_by_formula(grids: tuple[tuple[int, int], ...]) -> list[set[tuple[int, int]]]:
    return [{(row - 1, column - 1) for row, column in owned_cells(grids, layer)} for layer in range(len(grids))]


def test_the_layers_own_the_papers_cells_on_a_16_grid():
    axis = [[position + 1 for position in dilated_positions(16, count)] for count in (1, 2, 4, 8, 16)]
    assert axis[0] == [9]
    assert axis[1] == [5, 13]
    assert axis[2] == [3, 7, 11, 15]
    assert axis[3] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert axis[4] == list(range(1, 17))


def test_the_first_four_layers_own_disjoint_cells_and_85_cells_hold_three_tokens():
    masks = DilationSubsampler(PyramidConfig()).masks
    assert masks.shape == (6, 16, 16)
    assert masks.sum(dim=(1, 2)).tolist() == [1, 4, 16, 64, 256, 256]
    assert masks[:4].sum(dim=0).max() == 1
    tokens_a_cell = masks.sum(dim=0)
    assert (tokens_a_cell == 3).sum() == 85
    assert (tokens_a_cell == 2).sum() == 171


def test_an_image_has_597_tokens_and_1109_with_eight_layers():
    assert PyramidConfig().cumulative_tokens == (1, 5, 21, 85, 341, 597)
    assert preset("spae-8-128").pyramid.cumulative_tokens[-1] == 1109
    assert PyramidConfig().first_decodable_layer == 5
    assert preset("tiny").pyramid.first_decodable_layer == 3


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_masks_and_first_owners_are_those_of_the_formula(grids):
    subsampler = DilationSubsampler(PyramidConfig(layer_grids=grids))
    cells = masks_by_formula(grids)
    for row in range(grids[-1][0]):
        for column in range(grids[-1][1]):
            owners = [layer for layer, owned in enumerate(cells) if (row, column) in owned]
            assert subsampler.masks[:, row, column].nonzero().flatten().tolist() == owners
            assert subsampler.first_owner[row, column] == owners[0]


@settings(deadline=None, max_examples=60)
@given(grids=layer_grids())
def test_any_monotone_pyramid_of_divisors_is_that_of_the_formula(grids):
    subsampler = DilationSubsampler(PyramidConfig(layer_grids=grids))
    for layer, owned in enumerate(masks_by_formula(grids)):
        assert {tuple(cell) for cell in subsampler.masks[layer].nonzero().tolist()} == owned
        assert len(owned) == grids[layer][0] * grids[layer][1]


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_a_layers_values_are_gathered_in_raster_order_and_scattered_back(grids):
    subsampler = DilationSubsampler(PyramidConfig(layer_grids=grids))
    height, width = grids[-1]
    numbered = torch.arange(2 * height * width).view(2, height, width)
    for layer, (rows, columns) in enumerate(grids):
        gathered = subsampler.gather(numbered, layer)
        assert gathered.shape == (2, rows, columns)
        expected = [(row - 1) * width + column - 1 for row, column in owned_cells(grids, layer)]
        assert gathered[0].flatten().tolist() == expected
        assert gathered[1].flatten().tolist() == [height * width + cell for cell in expected]
        scattered = subsampler.scatter(gathered, layer, fill=-7)
        owned = subsampler.masks[layer].expand(2, height, width)
        assert torch.equal(scattered[owned], numbered[owned])
        assert (scattered[~owned] == -7).all()


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_cells_without_a_token_are_filled_from_the_nearest_that_owns_one(grids):
    subsampler = DilationSubsampler(PyramidConfig(layer_grids=grids))
    height, width = grids[-1]
    generator = torch.Generator().manual_seed(0)
    latents = torch.rand(2, 3, height, width, generator=generator)
    cells = masks_by_formula(grids)
    for depth in range(1, len(grids) + 1):
        owners = sorted(set().union(*cells[:depth]))
        expected = torch.empty_like(latents)
        for row in range(height):
            for column in range(width):
                # sorted is raster order and min takes the first of equals: ties to the lowest cell.
                near = min(owners, key=lambda cell: (cell[0] - row) ** 2 + (cell[1] - column) ** 2)
                expected[:, :, row, column] = latents[:, :, near[0], near[1]]
        assert torch.equal(subsampler.fill(latents, depth), expected)


def test_nothing_is_filled_once_every_cell_owns_a_token():
    subsampler = DilationSubsampler(PyramidConfig(layer_grids=IMAGE_LAYER_GRIDS))
    latents = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(subsampler.fill(latents, 5), latents)
    assert not torch.equal(subsampler.fill(latents, 4), latents)

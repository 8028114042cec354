"""Batches by (seed, step) alone: epochs, flips and windows that agree with slices of the whole picture."""

import numpy as np
import pytest
import torch

from spae_core.configs import PyramidConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import preset
from spae_core.pyramid import DilationSubsampler
from spae_core.quantizer import StreamingAverageQuantizer
from spae_core.training_batches import TrainingBatch, draw_batch, step_generator

SUBSAMPLER = DilationSubsampler(PyramidConfig(layer_grids=((1, 1), (2, 2), (4, 4), (4, 4))))
CROPS = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)  # 4 px a cell
GIVEN = torch.arange(7 * 4 * 4 * 4).view(7, 4, 4, 4)


def draw(step: int = 0, seed: int = 0, batch_size: int = 5, window_cells: int = 0) -> TrainingBatch:
    return draw_batch(
        CROPS,
        GIVEN,
        SUBSAMPLER,
        seed=seed,
        step=step,
        batch_size=batch_size,
        window_cells=window_cells,
    )


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 20])
def test_every_crop_is_seen_once_before_any_is_seen_again(batch_size):
    num_steps = -(-28 // batch_size)
    seen = torch.cat([draw(step, batch_size=batch_size).indices for step in range(num_steps)]).tolist()
    epochs = [seen[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    # The order does not depend on how it is cut into batches.
    assert seen[:28] == torch.cat([draw(step, batch_size=7).indices for step in range(4)]).tolist()


def test_a_batch_depends_on_seed_and_step_alone():
    def same(first: TrainingBatch, second: TrainingBatch) -> bool:
        return torch.equal(first.indices, second.indices) and torch.equal(first.images, second.images)

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = draw(3, window_cells=2)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert same(first, draw(3, window_cells=2))
    assert not same(first, draw(4, window_cells=2))
    assert not same(first, draw(3, seed=1, window_cells=2))


def test_the_numbers_of_one_step_say_nothing_about_the_next():
    drawn = {torch.rand(1, generator=step_generator(seed, step)).item() for seed in range(20) for step in range(20)}
    assert len(drawn) == 400


def test_whole_pictures_are_the_crops_or_their_mirror_images_in_0_to_1():
    flipped, plain = 0, 0
    for step in range(8):
        batch = draw(step)
        assert batch.images.dtype == torch.float32
        assert batch.images.shape == (5, 3, 16, 16)
        for row, image in zip(batch.indices.tolist(), batch.images, strict=True):
            crop = torch.from_numpy(CROPS[row]).permute(2, 0, 1) / 255
            mirrored = torch.equal(image, crop.flip(2))
            assert mirrored or torch.equal(image, crop)
            flipped, plain = flipped + mirrored, plain + (not mirrored)
    assert 8 < flipped < 32


@pytest.mark.parametrize("window_cells", [0, 1, 2, 3, 4])
def test_a_window_shows_its_slice_of_picture_masks_owners_and_given_words(window_cells):
    side = window_cells or 4
    corners = set()
    for step in range(6):
        batch = draw(step, window_cells=window_cells)
        assert batch.masks.shape == (5, 4, side, side)
        assert batch.masks.dtype == torch.bool
        for position, row in enumerate(batch.indices.tolist()):
            # The given words are numbered, so the first one tells which crop and which corner.
            first = int(batch.given[position, 0, 0, 0]) - row * 64
            top, left = divmod(first, 4)
            corners.add((top, left))
            window = (slice(top, top + side), slice(left, left + side))
            assert torch.equal(batch.given[position], GIVEN[row][:, *window])
            assert torch.equal(batch.masks[position], SUBSAMPLER.masks[:, *window])
            assert torch.equal(batch.first_owner[position], SUBSAMPLER.first_owner[window])
            crop = torch.from_numpy(CROPS[row]).permute(2, 0, 1) / 255
            pixels = (slice(4 * top, 4 * (top + side)), slice(4 * left, 4 * (left + side)))
            image = batch.images[position]
            assert torch.equal(image, crop[:, *pixels]) or torch.equal(image, crop.flip(2)[:, *pixels])
    assert len(corners) == min((5 - side) ** 2, len(corners))
    assert corners == {(0, 0)} if side == 4 else len(corners) > 2


def test_without_a_semantic_head_nothing_is_given():
    batch = draw_batch(CROPS, None, SUBSAMPLER, seed=0, step=0, batch_size=2, window_cells=0)
    assert batch.given is None


def test_quantizing_a_drawn_window_is_slicing_the_quantized_whole():
    config = preset("tiny")
    subsampler = DilationSubsampler(config.pyramid)
    generator = torch.Generator().manual_seed(1)
    codebook = LexicalCodebook(
        embeddings=torch.randint(-8, 9, (40, 3), generator=generator) / 4,
        token_ids=tuple(range(40)),
        words=tuple(map(str, range(40))),
        source="made up",
    )
    quantizer = StreamingAverageQuantizer(config.quantizer, config.pyramid, codebook, 3)
    latents = torch.randint(-8, 9, (7, 3, 4, 4), generator=generator) / 4
    given = torch.full((7, 4, 4, 4), -1)
    given[:, :2] = torch.where(subsampler.masks[:2], torch.randint(40, (7, 2, 4, 4), generator=generator), -1)
    # The position of each cell travels as the picture, so that the latents can be cut as the batch was.
    batch = draw_batch(CROPS, given, subsampler, seed=2, step=0, batch_size=7, window_cells=2)
    numbered = draw_batch(CROPS, GIVEN, subsampler, seed=2, step=0, batch_size=7, window_cells=2)
    whole = quantizer.assign(latents[batch.indices], given=given[batch.indices])
    cut, indices, quantized = [], [], []
    for position, row in enumerate(batch.indices.tolist()):
        top, left = divmod(int(numbered.given[position, 0, 0, 0]) - row * 64, 4)
        window = (slice(top, top + 2), slice(left, left + 2))
        cut.append(latents[row][:, *window])
        indices.append(whole.indices[position][:, *window])
        quantized.append(whole.quantized[position][:, *window])
    part = quantizer.assign(torch.stack(cut), masks=batch.masks, given=batch.given)
    assert torch.equal(part.indices, torch.stack(indices))
    assert torch.equal(part.quantized, torch.stack(quantized))

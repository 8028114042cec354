"""The pictures of the report: originals found again or their absence told, prefixes decoded and measured."""

import base64
import io
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encode, photo
from PIL import Image
from report_runs import GRIDS, small_model

from pipelines.errors import UsageError
from pipelines.evaluation.report_data import SampleRow
from pipelines.evaluation.report_pictures import (
    cell_colours,
    choose_prefixes,
    data_uri,
    decode_samples,
    read_original,
    thumbnail_uri,
)
from pipelines.stages.image_decoding import decode_image
from spae_core.tokenizer import SpaeTokenizer

PAPER_GRIDS = ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16))


def row_of(path: Path) -> SampleRow:
    content = path.read_bytes()
    return SampleRow(
        sample_id="id",
        uri=str(path),
        content_sha256=sha256(content).hexdigest(),
        width_px=90,
        height_px=70,
        code_indices=(),
    )


def picture_of(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize(
    ("grids", "asked", "expected"),
    [
        (PAPER_GRIDS, (), (5, 6)),
        ((*PAPER_GRIDS, (16, 16), (16, 16)), (), (7, 8)),
        (PAPER_GRIDS[:5], (), (5,)),
        (PAPER_GRIDS[:3], (), (3,)),
        (PAPER_GRIDS, (6, 1, 6), (1, 6)),
    ],
)
def test_pictures_are_decoded_from_the_last_two_prefixes_that_fill_all_cells_or_from_those_asked_for(
    grids: tuple[tuple[int, int], ...], asked: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert choose_prefixes(grids, asked) == expected


@pytest.mark.parametrize("wrong", [0, 7, -1])
def test_a_layer_that_is_not_there_is_refused(wrong: int) -> None:
    with pytest.raises(UsageError, match=f"expected 1 to 6, got {wrong}"):
        choose_prefixes(PAPER_GRIDS, (5, wrong))


def test_the_original_is_read_again_as_the_model_saw_it(tmp_path: Path) -> None:
    path = tmp_path / "a photo*.png"
    photo(90, 70).save(path)
    original = read_original(row_of(path), 64)
    assert original.absent == ""
    expected = decode_image(path.read_bytes(), image_size_px=64).pixels
    assert np.array_equal(original.pixels, expected)


def test_an_original_that_is_gone_changed_or_spoilt_says_so(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo(90, 70).save(path)
    row = row_of(path)
    photo(90, 70, seed=1).save(path)
    assert "another picture has taken its place" in read_original(row, 64).absent
    path.write_bytes(encode(photo(90, 70), "PNG")[:300])
    assert "cannot be decoded (TruncatedImage)" in read_original(row_of(path), 64).absent
    path.unlink()
    gone = read_original(row, 64)
    assert gone.pixels is None
    assert "no longer there" in gone.absent


def test_decoded_prefixes_are_those_of_the_tokenizer_and_measured_against_the_original(
    tmp_path: Path,
) -> None:
    tokenizer = SpaeTokenizer.from_pretrained(small_model(tmp_path / "model"))
    rows, originals = [], []
    for seed in range(10):  # more than one batch
        path = tmp_path / f"{seed}.png"
        photo(90, 70, seed=seed).save(path)
        originals.append(read_original(row_of(path), 64))
        rows.append(row_of(path))
    images = torch.from_numpy(np.stack([original.pixels for original in originals])).permute(0, 3, 1, 2) / 255
    pyramid = tokenizer.tokenize(images)
    rows = [
        replace(row, code_indices=tuple(tuple(layer[index].flatten().tolist()) for layer in pyramid.code_indices))
        for index, row in enumerate(rows)
    ]
    originals[3] = replace(originals[3], pixels=None, absent="gone")
    decoded = decode_samples(tokenizer, rows, originals, GRIDS, (2, 5))
    for column, num_layers in enumerate((2, 5)):
        expected = tokenizer.detokenize(pyramid, num_layers=num_layers)
        for index, sample in enumerate(decoded):
            assert sample[column].num_layers == num_layers
            pixels = expected[index].permute(1, 2, 0).numpy() * 255
            assert np.abs(sample[column].pixels - pixels).max() <= 1
            if index == 3:
                assert sample[column].psnr_db is None
            else:
                error = float(((expected[index] - images[index]) ** 2).mean())
                assert sample[column].psnr_db == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert not np.array_equal(decoded[0][0].pixels, decoded[0][1].pixels)


def test_a_picture_of_128_px_keeps_every_pixel_and_a_large_one_is_made_small() -> None:
    small = np.asarray(photo(128, 128))
    assert np.array_equal(np.asarray(picture_of(data_uri(small)).convert("RGB")), small)
    large = np.asarray(photo(512, 512))
    assert len(data_uri(large)) < large.nbytes / 4
    assert picture_of(data_uri(large)).size == (512, 512)
    assert picture_of(thumbnail_uri(large)).size == (96, 96)


def test_cell_colours_are_the_means_of_the_cells() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, 4:] = (255, 0, 16)
    pixels[4:, :4] = (0, 200, 0)
    pixels[4:6, 4:] = 100
    assert cell_colours(pixels, (2, 2)) == ["#000000", "#ff0010", "#00c800", "#323232"]

"""Crop sets: the same bytes whatever the threads, kept when nothing changed, honest about unreadable pictures."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, photo
from PIL import Image

from pipelines.errors import BadDataError
from pipelines.training_crops import (
    CROPS_FILE,
    SOURCES_FILE,
    SUMMARY_FILE,
    CropConfig,
    cut_picture,
    delete_crops,
    load_crops,
    make_crops,
)

CONFIG = CropConfig(image_size_px=16, min_crops=3, max_crops=9, crops_per_megapixel=600.0)


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    """Ten photographs of several sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(10):
        (folder / f"{index}.png").write_bytes(encode(photo(40 + 12 * index, 90 - 4 * index, seed=index), "PNG"))
    return [str(path) for path in folder.iterdir()]


def write(tmp_path: Path, name: str, content: bytes) -> str:
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)


def sources(folder: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (folder / SOURCES_FILE).read_text().splitlines()]
    return {Path(line["uri"]).name: line for line in lines}


def test_the_number_of_threads_and_the_order_of_inputs_change_no_byte(corpus, tmp_path):
    alone = make_crops(sorted(corpus), tmp_path / "a", CONFIG, num_threads=1)
    many = make_crops(sorted(corpus, reverse=True), tmp_path / "b", CONFIG, num_threads=5)
    for name in (CROPS_FILE, SOURCES_FILE, SUMMARY_FILE):
        assert (alone.folder / name).read_bytes() == (many.folder / name).read_bytes(), name
    assert alone.images.shape[1:] == (16, 16, 3)
    assert alone.images.dtype == np.uint8
    assert len({crop.tobytes() for crop in alone.images}) == len(alone.images)
    other = make_crops(corpus, tmp_path / "c", CropConfig(image_size_px=16, min_crops=3, seed=1))
    assert not np.array_equal(other.images[:1], alone.images[1:2])


def test_a_larger_picture_gives_more_crops_within_the_bounds(tmp_path):
    # 600 a megapixel: 40×40 px ask for 1 and get 3, 100×100 get 6, 200×200 ask for 24 and get 9.
    for side, number in ((40, 3), (100, 6), (200, 9)):
        uri = write(tmp_path, f"{side}.png", encode(photo(side, side), "PNG"))
        crops, reason = cut_picture(uri, CONFIG)
        assert (len(crops), reason) == (number, None)


def test_the_first_crop_is_the_whole_centre_square(tmp_path):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = (250, 120, 30)  # the square in the middle; the black beside it bleeds in by a pixel or two
    uri = write(tmp_path, "wide.png", encode(Image.fromarray(pixels), "PNG"))
    crops, _ = cut_picture(uri, CONFIG)
    assert (crops[0][:, 2:-2] == (250, 120, 30)).all()
    assert crops[0][..., 0].min() > 200


def test_a_crop_is_never_cut_smaller_than_it_will_be(tmp_path):
    # Columns of single pixels: a crop of fewer than 16 would have to be blown up and would not alternate.
    pixels = np.zeros((16, 40, 3), np.uint8)
    pixels[:, ::2] = 255
    uri = write(tmp_path, "stripes.png", encode(Image.fromarray(pixels), "PNG"))
    crops, _ = cut_picture(uri, CropConfig(image_size_px=16, min_crops=8))
    for crop in crops:
        assert set(np.unique(crop)) == {0, 255}
        assert (crop[:, :-1] != crop[:, 1:]).all()


def test_transparent_parts_are_white_and_half_transparent_ones_lighter(tmp_path):
    for name, image, colour in (
        ("clear.png", Image.new("RGBA", (20, 20), (200, 0, 0, 0)), (255, 255, 255)),
        ("half.png", Image.new("RGBA", (20, 20), (200, 40, 40, 128)), (227, 147, 147)),
        ("grey.png", Image.new("LA", (20, 20), (100, 0)), (255, 255, 255)),
        ("opaque.png", Image.new("RGBA", (20, 20), (200, 40, 40, 255)), (200, 40, 40)),
    ):
        crops, reason = cut_picture(write(tmp_path, name, encode(image, "PNG")), CONFIG)
        assert reason is None
        assert np.abs(crops.astype(int) - colour).max() <= 1, name
    palette = encode(Image.new("P", (20, 20), 0), "GIF", transparency=0)
    assert (cut_picture(write(tmp_path, "palette.gif", palette), CONFIG)[0] == 255).all()


def test_a_turned_picture_is_cut_upright(tmp_path):
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255  # white above; turned a quarter clockwise the white is on the right
    exif = Image.Exif()
    exif[0x0112] = 6
    uri = write(tmp_path, "turned.png", encode(Image.fromarray(pixels), "PNG", exif=exif))
    first = cut_picture(uri, CONFIG)[0][0]
    assert first[:, 12:].min() > 200
    assert first[:, :4].max() < 50


def test_every_nth_frame_of_an_animated_picture_is_used(tmp_path):
    frames = [Image.new("RGB", (20, 20), (20 * index, 0, 0)) for index in range(10)]
    animated = encode(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=50)
    uri = write(tmp_path, "animated.png", animated)
    crops, reason = cut_picture(uri, CropConfig(image_size_px=16, min_crops=2, frame_step=4))
    assert reason is None
    assert crops[:, 8, 8, 0].tolist() == [0, 0, 80, 80, 160, 160]


def test_the_same_set_is_used_again_and_another_is_made_anew(corpus, tmp_path):
    done: list[str] = []
    made = make_crops(corpus, tmp_path / "set", CONFIG, on_picture=done.append)
    assert sorted(done) == sorted(corpus)
    written = (made.folder / CROPS_FILE).stat().st_mtime_ns
    again = make_crops(reversed(corpus), tmp_path / "set", CONFIG, on_picture=done.append)
    assert len(done) == 10
    assert (again.folder / CROPS_FILE).stat().st_mtime_ns == written
    assert np.array_equal(again.images, made.images)
    fewer = make_crops(corpus[:4], tmp_path / "set", CONFIG, on_picture=done.append)
    assert len(done) == 14
    assert len(fewer.images) < len(made.images)
    changed = CropConfig(image_size_px=8, min_crops=1)
    assert make_crops(corpus[:4], tmp_path / "set", changed).images.shape[1:] == (8, 8, 3)


def test_a_set_without_its_summary_is_unfinished_and_made_again(corpus, tmp_path):
    made = make_crops(corpus, tmp_path / "set", CONFIG)
    expected = np.array(made.images)
    (tmp_path / "set" / SUMMARY_FILE).unlink()
    (tmp_path / "set" / CROPS_FILE).write_bytes(b"half")
    with pytest.raises(BadDataError, match=f"expected {SUMMARY_FILE}, got none"):
        load_crops(tmp_path / "set")
    assert np.array_equal(make_crops(corpus, tmp_path / "set", CONFIG).images, expected)
    delete_crops(tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_unreadable_pictures_are_listed_with_their_reason_and_the_others_kept(corpus, tmp_path, caplog):
    whole = encode(photo(60, 60), "PNG")
    bad = [
        write(tmp_path, "truncated.png", whole[: len(whole) // 2]),
        write(tmp_path, "page.jpg", b"<html>404</html>"),
        write(tmp_path, "empty.png", b""),
        str(tmp_path / "absent.png"),
    ]
    alone = make_crops(corpus, tmp_path / "alone", CONFIG)
    with caplog.at_level(logging.WARNING):
        mixed = make_crops([*corpus, *bad], tmp_path / "mixed", CONFIG)
    lines = sources(tmp_path / "mixed")
    assert len(lines) == 14
    for uri in bad:
        line = lines[Path(uri).name]
        assert line["crops"] == 0
        assert line["error"]
        assert uri in caplog.text
    assert all(lines[Path(uri).name]["error"] is None for uri in corpus)
    assert sum(line["crops"] for line in lines.values()) == len(mixed.images) == len(alone.images)
    assert sorted(crop.tobytes() for crop in mixed.images) == sorted(crop.tobytes() for crop in alone.images)
    summary = json.loads((tmp_path / "mixed" / SUMMARY_FILE).read_text())
    assert (summary["num_inputs"], summary["num_unreadable"]) == (14, 4)
    assert summary["num_crops"] == len(mixed.images)


def test_no_readable_picture_is_bad_data(tmp_path):
    bad = [write(tmp_path, f"{index}.jpg", b"no picture") for index in range(3)]
    with pytest.raises(BadDataError, match="at least one readable of 3, got none"):
        make_crops(bad, tmp_path / "set", CONFIG)
    with pytest.raises(BadDataError):
        load_crops(tmp_path / "set")
    assert sources(tmp_path / "set").keys() == {"0.jpg", "1.jpg", "2.jpg"}
    with pytest.raises(BadDataError, match="of 0, got none"):
        make_crops([], tmp_path / "empty", CONFIG)


@pytest.mark.parametrize("side", range(16, 64, 3))
def test_a_picture_as_small_as_a_crop_is_used_whole(tmp_path, side):
    # exp(log(side)) is a little below side for some; cut off, such a crop would miss a row and a column.
    uri = write(tmp_path, "small.png", encode(photo(side, side), "PNG"))
    crops, _ = cut_picture(uri, CropConfig(image_size_px=side, min_crops=3))
    assert len(crops) == 3
    assert (crops == crops[0]).all()

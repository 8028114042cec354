"""Crop sets: the same bytes whatever the threads, kept when nothing changed, honest about unreadable pictures."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import encode, photo
from PIL import Image

import pipelines.training.training_crops as training_crops
from pipelines.errors import BadDataError
from pipelines.readers import ListingNotes, list_inputs, open_inputs
from pipelines.training.crop_cutting import CropConfig, cut_picture
from pipelines.training.crop_set import SUMMARY_FILE, CropSet, is_crop_set, open_crops, unpack_crops
from pipelines.training.training_crops import SOURCES_FILE, UNREADABLE_FILE, make_crops
from schemas.versions import SchemaError

CONFIG = CropConfig(image_size_px=16, min_crops=3, max_crops=9, crops_per_megapixel=600.0, webp_quality=100)


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    """Ten photographs of several sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(10):
        (folder / f"{index}.png").write_bytes(encode(photo(40 + 12 * index, 90 - 4 * index, seed=index), "PNG"))
    return [str(path) for path in folder.iterdir()]


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 16 crops, so that a small set has several."""
    monkeypatch.setattr(training_crops, "CROPS_PER_PART", 16)


def entries(uris) -> list:
    return list(list_inputs(open_inputs(uris), ListingNotes()))


def write(tmp_path: Path, name: str, content: bytes) -> str:
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)


def stored(crops: CropSet) -> list[bytes]:
    return [crop for name, _ in crops.parts for crop in pq.read_table(crops.folder / name)["webp"].to_pylist()]


def sources(folder: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (folder / SOURCES_FILE).read_text().splitlines()]
    return {Path(line["uri"]).name: line for line in lines}


def files(crops: CropSet) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in crops.folder.iterdir()}


def test_the_number_of_threads_and_the_order_of_inputs_change_no_byte(corpus, tmp_path, small_parts):
    alone = make_crops(entries(sorted(corpus)), tmp_path / "a", CONFIG, num_threads=1)
    many = make_crops(entries(sorted(corpus, reverse=True)), tmp_path / "b", CONFIG, num_threads=5)
    assert files(alone) == files(many)
    assert alone.sha256 == many.sha256
    assert len(alone.parts) == -(-alone.num_crops // 16) > 2
    other = make_crops(entries(corpus), tmp_path / "c", CropConfig(image_size_px=16, min_crops=3, seed=1))
    assert other.sha256 != alone.sha256


def test_the_array_has_every_crop_in_the_order_of_the_sources(corpus, tmp_path, small_parts):
    made = make_crops(entries(corpus), tmp_path / "set", CONFIG)
    pixels = unpack_crops(made, tmp_path / "run")
    assert pixels.shape == (made.num_crops, 16, 16, 3)
    assert pixels.dtype == np.uint8
    expected = np.concatenate(
        [cut_picture(Path(uri).name, Path(uri).read_bytes(), CONFIG)[0] for uri in sorted(corpus)]
    )
    assert np.abs(pixels.astype(int) - expected).mean() < 4  # what WebP loses
    tables = [pq.read_table(made.folder / name) for name, _ in made.parts]
    rows = [row for table in tables for row in table["source"].to_pylist()]
    counts = [line["crops"] for line in sources(made.folder).values()]
    assert [rows.count(source) for source in range(len(counts))] == counts


def test_the_array_is_unpacked_once_and_anew_for_another_set(corpus, tmp_path):
    made = make_crops(entries(corpus), tmp_path / "set", CONFIG)
    first = unpack_crops(made, tmp_path / "run")
    (path,) = (tmp_path / "run").iterdir()
    written = path.stat().st_mtime_ns
    for name, _ in made.parts:
        (made.folder / name).unlink()
    assert np.array_equal(unpack_crops(made, tmp_path / "run"), first)
    assert path.stat().st_mtime_ns == written
    fewer = make_crops(entries(corpus[:4]), tmp_path / "fewer", CONFIG)
    assert len(unpack_crops(fewer, tmp_path / "run")) == fewer.num_crops < len(first)


def test_the_same_set_is_used_again_and_another_is_made_anew(corpus, tmp_path):
    done: list[str] = []
    made = make_crops(entries(corpus), tmp_path / "set", CONFIG, on_picture=done.append)
    assert sorted(done) == sorted(corpus)
    again = make_crops(entries(reversed(corpus)), tmp_path / "set", CONFIG, on_picture=done.append)
    assert len(done) == 10
    assert again == made == open_crops(tmp_path / "set")
    fewer = make_crops(entries(corpus[:4]), tmp_path / "set", CONFIG, on_picture=done.append)
    assert len(done) == 14
    assert fewer.num_crops < made.num_crops
    changed = CropConfig(image_size_px=8, min_crops=1)
    assert make_crops(entries(corpus[:4]), tmp_path / "set", changed).image_size_px == 8


def test_a_picture_that_was_changed_in_place_is_cut_again(corpus, tmp_path):
    before = make_crops(entries(corpus), tmp_path / "set", CONFIG)
    Path(corpus[0]).write_bytes(encode(photo(64, 64, seed=99), "PNG"))
    assert make_crops(entries(corpus), tmp_path / "set", CONFIG).sha256 != before.sha256


def test_a_set_without_its_summary_is_unfinished_and_made_again(corpus, tmp_path, small_parts):
    made = make_crops(entries(corpus), tmp_path / "set", CONFIG)
    expected = files(made)
    (tmp_path / "set" / SUMMARY_FILE).unlink()
    (tmp_path / "set" / made.parts[0][0]).write_bytes(b"half")
    (tmp_path / "set" / "part-00099.parquet").write_bytes(b"of an older set")
    assert not is_crop_set(tmp_path / "set")
    with pytest.raises(BadDataError, match=f"expected {SUMMARY_FILE}, got none"):
        open_crops(tmp_path / "set")
    assert files(make_crops(entries(corpus), tmp_path / "set", CONFIG)) == expected


def test_a_damaged_or_absent_part_is_refused_with_both_hashes(corpus, tmp_path):
    made = make_crops(entries(corpus), tmp_path / "set", CONFIG)
    (name, digest) = made.parts[0]
    content = (made.folder / name).read_bytes()
    (made.folder / name).write_bytes(content[:-100] + b"x" * 100)
    with pytest.raises(BadDataError, match=f"expected sha256 {digest}, got sha256 "):
        unpack_crops(made, tmp_path / "run")
    (made.folder / name).unlink()
    with pytest.raises(BadDataError, match=f"{name}: expected sha256 {digest}, got no file"):
        unpack_crops(made, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.npy"))
    summary = json.loads((made.folder / SUMMARY_FILE).read_text())
    (made.folder / SUMMARY_FILE).write_text(json.dumps(summary | {"schema": "crops/9"}))
    with pytest.raises(SchemaError, match="expected crops/1, got crops/9"):
        open_crops(made.folder)


def test_unreadable_pictures_are_listed_with_their_reason_and_the_others_kept(corpus, tmp_path, caplog):
    whole = encode(photo(60, 60), "PNG")
    bad = [
        write(tmp_path, "truncated.png", whole[: len(whole) // 2]),
        write(tmp_path, "page.jpg", b"<html>404</html>"),
        write(tmp_path, "empty.png", b""),
    ]
    alone = make_crops(entries(corpus), tmp_path / "alone", CONFIG)
    assert (alone.folder / UNREADABLE_FILE).read_text() == ""
    with caplog.at_level(logging.WARNING):
        mixed = make_crops(entries([*corpus, *bad]), tmp_path / "mixed", CONFIG)
    lines = sources(tmp_path / "mixed")
    assert len(lines) == 13
    listed = (tmp_path / "mixed" / UNREADABLE_FILE).read_text().splitlines()
    assert len(listed) == mixed.num_unreadable == 3
    for uri in bad:
        line = lines[Path(uri).name]
        assert line["crops"] == 0
        assert f"{uri}\t{line['error']}" in listed
        assert uri in caplog.text
    assert all(lines[Path(uri).name]["error"] is None for uri in corpus)
    assert mixed.num_crops == alone.num_crops
    pixels = [unpack_crops(crops, tmp_path / "run") for crops in (alone, mixed)]
    assert sorted(crop.tobytes() for crop in pixels[0]) == sorted(crop.tobytes() for crop in pixels[1])


def test_crops_that_show_too_little_are_left_out(corpus, tmp_path):
    flat = write(tmp_path, "flat.png", encode(Image.new("RGB", (60, 60), (90, 160, 40)), "PNG"))
    everything = make_crops(entries([*corpus, flat]), tmp_path / "all", CONFIG)
    sizes = sorted(len(crop) for crop in stored(everything))
    median = sizes[len(sizes) // 2]
    detailed = make_crops(entries([*corpus, flat]), tmp_path / "some", replace(CONFIG, min_webp_bytes=median))
    assert [len(crop) for crop in stored(detailed)] == [len(c) for c in stored(everything) if len(c) >= median]
    assert 0 < detailed.num_crops < everything.num_crops
    assert sources(tmp_path / "some")["flat.png"] == {"uri": flat, "crops": 0, "error": None}
    with pytest.raises(BadDataError, match=f"at least 100000 bytes, got none of {len(corpus) + 1} pictures"):
        make_crops(entries([*corpus, flat]), tmp_path / "none", replace(CONFIG, min_webp_bytes=100_000))


def test_no_readable_picture_is_bad_data(tmp_path):
    bad = [write(tmp_path, f"{index}.jpg", b"no picture") for index in range(3)]
    with pytest.raises(BadDataError, match="at least one readable of 3, got none"):
        make_crops(entries(bad), tmp_path / "set", CONFIG)
    assert not is_crop_set(tmp_path / "set")
    assert sources(tmp_path / "set").keys() == {"0.jpg", "1.jpg", "2.jpg"}
    with pytest.raises(BadDataError, match="of 0, got none"):
        make_crops([], tmp_path / "empty", CONFIG)


@pytest.mark.parametrize("side", range(16, 64, 3))
def test_a_picture_as_small_as_a_crop_is_used_whole(side):
    # exp(log(side)) is a little below side for some; cut off, such a crop would miss a row and a column.
    crops, _ = cut_picture("small.png", encode(photo(side, side), "PNG"), CropConfig(image_size_px=side, min_crops=3))
    assert len(crops) == 3
    assert (crops == crops[0]).all()

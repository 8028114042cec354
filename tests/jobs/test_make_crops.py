"""`spae crops`, and crop sets as the data of a training."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from containers import write_every_kind, writer_below
from pictures import encode, photo, write_photos

from jobs.cli import main
from jobs.training_inputs import crops_of
from pipelines.errors import UsageError
from pipelines.training.crop_set import SUMMARY_FILE, open_crops
from pipelines.training.training_crops import UNREADABLE_FILE


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_photos(tmp_path / "photos", 6)


def make(*words: object) -> int:
    return main(["crops", *map(str, words), "--image-size-px", "32"])


def test_the_command_makes_a_set_and_says_what_could_not_be_read(photos, tmp_path, capsys):
    out = tmp_path / "set"
    assert make(photos, "--out", out) == 0
    said = capsys.readouterr()
    assert f"crops: {out}: 24 in 1 parts" in said.out
    assert f"1 pictures could not be read: {out / UNREADABLE_FILE} lists them" in said.err
    assert "broken.png\tUnidentifiedImageError" in (out / UNREADABLE_FILE).read_text()
    assert make(photos, "--out", out) == 0


def whole_squares(folder: Path) -> set[bytes]:
    """The first crop of each picture, which shows all of it, whatever the picture is called."""
    first: dict[int, bytes] = {}
    for name, _ in open_crops(folder).parts:
        for row in pq.read_table(folder / name).to_pylist():
            first.setdefault(row["source"], row["webp"])
    return set(first.values())


def test_pictures_are_found_in_every_kind_of_input(photos, tmp_path):
    places = write_every_kind(photos, writer_below(tmp_path / "inputs"))
    for kind, place in places.items():
        assert make(tmp_path / "inputs" / place, "--out", tmp_path / kind) == 0, kind
        assert open_crops(tmp_path / kind).num_crops == 24, kind
        assert open_crops(tmp_path / kind).num_unreadable == 1, kind
        assert whole_squares(tmp_path / kind) == whole_squares(tmp_path / "folder"), kind
    assert len(whole_squares(tmp_path / "folder")) == 6


def test_what_is_missing_of_a_container_is_listed_and_the_rest_kept(photos, tmp_path):
    write_every_kind(photos, writer_below(tmp_path / "inputs"))
    tar = tmp_path / "inputs" / "wds" / "000.tar"
    tar.write_bytes(tar.read_bytes()[:-12_000])
    assert make(tmp_path / "inputs" / "wds", "--out", tmp_path / "set") == 0
    crops = open_crops(tmp_path / "set")
    assert f"{tar}#" in (crops.folder / UNREADABLE_FILE).read_text()
    assert "DamagedContainer: " in (crops.folder / UNREADABLE_FILE).read_text()
    assert 0 < crops.num_crops < 24


def test_the_column_of_the_pictures_can_be_named(photos, tmp_path, capsys):
    write_every_kind(photos, writer_below(tmp_path / "inputs"))
    table = tmp_path / "inputs" / "tables" / "bytes.parquet"
    assert make(table, "--out", tmp_path / "set", "--image-column", "caption") == 3  # read as names of files
    assert f"{table.parent / 'picture no. 0'}\tFileNotFoundError: " in (tmp_path / "set" / UNREADABLE_FILE).read_text()
    assert make(table, "--out", tmp_path / "set", "--image-column", "absent") == 2
    assert "absent" in capsys.readouterr().err
    assert make(table, "--out", tmp_path / "set", "--image-column", "image") == 0


def test_settings_reach_the_cutter(photos, tmp_path):
    crops = {}
    settings = {
        "plain": (),
        "seed": ("--seed", 1),
        "quality": ("--webp-quality", 50),
        "scale": ("--min-scale", 0.9),
        "detail": ("--min-webp-bytes", 310),
    }
    for name, words in settings.items():
        assert make(photos, "--out", tmp_path / name, *words) == 0
        crops[name] = open_crops(tmp_path / name)
    assert len({crops[name].sha256 for name in crops}) == 5
    assert 0 < crops["detail"].num_crops < crops["plain"].num_crops
    assert crops["quality"].size_bytes < crops["plain"].size_bytes


def test_of_a_large_input_the_same_share_is_taken_wherever_it_lies(photos, tmp_path):
    moved = tmp_path / "elsewhere"
    photos.joinpath("broken.png").unlink()
    photos.rename(moved) and photos.mkdir()
    (photos / "other.png").write_bytes(encode(photo(40, 50, seed=9), "PNG"))
    assert make(moved, photos, "--out", tmp_path / "both", "--max-pictures-per-input", 2) == 0
    assert open_crops(tmp_path / "both").num_crops == 4 * (2 + 1)
    moved.rename(tmp_path / "again")
    assert make(tmp_path / "again", photos, "--out", tmp_path / "later", "--max-pictures-per-input", 2) == 0
    assert open_crops(tmp_path / "later").sha256 == open_crops(tmp_path / "both").sha256


def test_a_training_takes_pictures_or_a_crop_set_and_sees_the_same(photos, tmp_path):
    make(photos, "--out", tmp_path / "set")
    from_set = crops_of((str(tmp_path / "set"),), tmp_path / "a", 32)
    from_pictures = crops_of((str(photos),), tmp_path / "b", 32)
    assert np.array_equal(from_set.crops, from_pictures.crops)
    assert from_set.crops.shape == (24, 32, 32, 3)
    assert from_set.crops_sha256 == from_pictures.crops_sha256 == open_crops(tmp_path / "set").sha256
    assert (tmp_path / "b" / "crops" / SUMMARY_FILE).is_file()


def test_crop_sets_that_do_not_fit_are_refused(photos, tmp_path):
    make(photos, "--out", tmp_path / "set")
    with pytest.raises(UsageError, match="expected one crop set, or pictures"):
        crops_of((str(tmp_path / "set"), str(photos)), tmp_path / "run", 32)
    with pytest.raises(
        UsageError, match=r"expected crops of 128 px for this preset, got 32 px\. .*--image-size-px 128"
    ):
        crops_of((str(tmp_path / "set"),), tmp_path / "run", 128)


def test_inputs_without_pictures_end_with_their_exit_codes(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    assert make(tmp_path / "absent", "--out", tmp_path / "set") == 2
    assert make(tmp_path / "empty", "--out", tmp_path / "set") == 2
    assert make(tmp_path / "bad", "--out", tmp_path / "set") == 3
    assert make(tmp_path / "bad", "--out", tmp_path / "set", "--webp-quality", 0) == 2
    assert "expected at least one readable of 1, got none" in capsys.readouterr().err

import errno
import os
import uuid
from pathlib import Path

import fsspec
import pytest

from pipelines.errors import UsageError
from pipelines.readers import ListingNotes, list_inputs, open_inputs


def listed(*inputs: object) -> tuple[list[str], ListingNotes]:
    notes = ListingNotes()
    found = [entry.uri for entry in list_inputs(open_inputs([str(text) for text in inputs]), notes)]
    return found, notes


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "deep/er/c.JpEg", "notes.txt", ".hidden.jpg", ".git/d.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_gives_its_pictures_and_counts_the_rest(photos):
    found, notes = listed(photos)
    assert found == [str(photos / name) for name in ("a.PNG", "b.jpg", "deep/er/c.JpEg")]
    assert notes.num_ignored == 3  # the text, the hidden picture, the hidden folder
    assert notes.problems == []


def test_size_and_time_of_change_are_noted(photos):
    (entry,) = list_inputs(open_inputs([str(photos / "b.jpg")]), ListingNotes())
    assert entry.size_bytes == 5
    assert entry.etag_or_mtime == str((photos / "b.jpg").stat().st_mtime_ns)


def test_links_to_folders_are_followed_once_and_loops_end(photos):
    (photos / "deep" / "loop").symlink_to(photos)
    (photos / "linked").symlink_to(photos / "deep")
    found, _ = listed(photos)
    assert len(found) == 3


def test_a_link_that_leads_nowhere_is_planned_so_that_the_quarantine_tells(photos):
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    found, _ = listed(photos)
    assert str(photos / "gone.jpg") in found


def test_a_pipe_named_like_a_picture_is_left_alone(photos):
    os.mkfifo(photos / "pipe.jpg")
    found, notes = listed(photos)
    assert len(found) == 3
    assert notes.num_ignored == 4
    with pytest.raises(UsageError, match="got a pipe or device"):
        open_inputs([str(photos / "pipe.jpg")])


def test_a_name_that_is_no_text_is_left_out_and_said(photos):
    Path(os.fsdecode(os.fsencode(photos) + b"/\xff.jpg")).write_bytes(b"x")
    found, notes = listed(photos)
    assert len(found) == 3
    assert "not UTF-8" in notes.problems[0]


def test_a_folder_that_may_not_be_listed_is_said_and_the_others_are_taken(photos, monkeypatch):
    locked = photos / "deep"
    really_scan = os.scandir

    def scan(folder: str) -> object:
        # The superuser may list everything, so the refusal is the test's own.
        if folder == str(locked):
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_scan(folder)

    monkeypatch.setattr(os, "scandir", scan)
    found, notes = listed(photos)
    assert [Path(uri).name for uri in found] == ["a.PNG", "b.jpg"]
    assert notes.problems == [f"{locked}: cannot be listed (Permission denied)"]


def test_a_glob_takes_matching_pictures_only(photos):
    (photos / "deep" / "fake.jpg").mkdir()
    (photos / "deep" / "loop").symlink_to(photos)
    found, notes = listed(f"{photos}/**/*.[jJ]*")
    assert found == [str(photos / "b.jpg"), str(photos / "deep/er/c.JpEg")]
    found, notes = listed(f"{photos}/*")
    assert found == [str(photos / "a.PNG"), str(photos / "b.jpg")]
    assert notes.num_ignored == 1


def test_a_file_is_taken_whatever_its_extension_and_with_a_star_in_its_name(photos):
    (photos / "odd[1]*.dat").write_bytes(b"x")
    found, _ = listed(photos / "notes.txt", photos / "odd[1]*.dat")
    assert found == [str(photos / "notes.txt"), str(photos / "odd[1]*.dat")]


def test_relative_paths_become_absolute(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert listed("b.jpg")[0] == [str(photos / "b.jpg")]
    assert listed(f"file://{photos}/b.jpg")[0] == [str(photos / "b.jpg")]


@pytest.mark.parametrize("name", ["nowhere", "nowhere.jpg", "gone/also.jpg"])
def test_what_is_not_there_is_refused_by_name(tmp_path, name):
    with pytest.raises(UsageError, match=f"{name}: expected a folder, a glob or a file, got nothing"):
        open_inputs([str(tmp_path / name)])


def test_no_input_at_all_is_refused():
    with pytest.raises(UsageError, match="expected at least one"):
        open_inputs([])


def test_a_container_is_refused_instead_of_becoming_one_bad_row(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"x")
    with pytest.raises(UsageError, match="got a container"):
        open_inputs([str(tmp_path / "photos.zip")])


@pytest.fixture
def bucket() -> str:
    filesystem = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    for name in ("b.jpg", "a.PNG", "deep/c.jpeg", "notes.txt"):
        filesystem.pipe_file(f"{root}/{name}", name.encode())
    return f"memory://{root}"


def test_a_remote_folder_is_walked(bucket):
    found, notes = listed(bucket)
    assert found == [f"{bucket}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.jpeg")]
    assert notes.num_ignored == 1


def test_a_remote_glob_and_a_remote_file_are_taken(bucket):
    assert listed(f"{bucket}/**/*.jpeg")[0] == [f"{bucket}/deep/c.jpeg"]
    assert listed(f"{bucket}/notes.txt")[0] == [f"{bucket}/notes.txt"]


def test_a_remote_place_that_is_not_there_is_refused(bucket):
    with pytest.raises(UsageError, match="got nothing of that name"):
        open_inputs([f"{bucket}/nowhere"])


def test_a_pattern_the_driver_does_not_know_is_refused(bucket):
    with pytest.raises(UsageError, match="expected a pattern"):
        listed(f"{bucket}/**.jpeg")


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UsageError, match="expected a url fsspec can open"):
        open_inputs(["nosuch://bucket/photos"])

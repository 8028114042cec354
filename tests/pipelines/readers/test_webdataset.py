import gzip
import io
import tarfile
import tracemalloc

import pytest
from containers import tar_bytes

from pipelines.readers import InputEntry, ListingNotes, ReadOptions, list_inputs, open_inputs

PICTURES = {f"{number:06d}.jpg": bytes([number]) * (700 * number) for number in range(1, 5)}


def listed(path: object, *keep: str) -> tuple[list[InputEntry], ListingNotes]:
    notes = ListingNotes()
    readers = open_inputs([str(path)], ReadOptions(keep_columns=keep))
    return list(list_inputs(readers, notes, keep_columns=keep)), notes


def write_tar(path, members: list[tuple[str, bytes]], **options: object) -> None:
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def test_each_picture_is_listed_with_the_place_of_its_bytes(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(PICTURES))
    entries, notes = listed(path)
    assert [entry.uri for entry in entries] == [f"{path}#{name}" for name in PICTURES]
    content = path.read_bytes()
    for entry in entries:
        start = entry.record.offset_bytes
        assert content[start : start + entry.size_bytes] == PICTURES[entry.uri.rpartition("#")[2]]
        assert entry.etag_or_mtime == str(path.stat().st_mtime_ns)
    assert notes.num_ignored == 0  # json, txt and cls belong to the pictures


def test_a_tar_cut_off_anywhere_says_so_and_lists_what_is_whole(tmp_path):
    whole = tar_bytes(PICTURES)
    end_of_members = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    path = tmp_path / "a.tar"
    for cut in range(0, end_of_members, 128):
        path.write_bytes(whole[:cut])
        *entries, last = listed(path)[0]
        assert last.uri == f"{path}#damaged", cut
        assert "expected a whole tar" in last.record.problem
        for entry in entries:
            name = entry.uri.rpartition("#")[2]
            start = entry.record.offset_bytes
            assert whole[:cut][start : start + entry.size_bytes] == PICTURES[name], cut
    path.write_bytes(whole[: end_of_members + 512])  # one block of zeros is the end, though two are usual
    assert len(listed(path)[0]) == len(PICTURES)


def test_a_compressed_tar_cut_off_anywhere_says_so(tmp_path):
    whole = gzip.compress(tar_bytes(PICTURES))
    path = tmp_path / "a.tar.gz"
    for cut in range(0, len(whole), 16):
        path.write_bytes(whole[:cut])
        assert listed(path)[0][-1].uri == f"{path}#damaged", cut
    path.write_bytes(whole)
    assert len(listed(path)[0]) == len(PICTURES)


def test_two_tars_in_one_file_are_not_read_as_the_first_alone(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(PICTURES) + tar_bytes(PICTURES))
    assert "more data behind the end" in listed(path)[0][-1].record.problem


def test_a_file_that_is_no_tar_says_so(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"this is text, though its name says otherwise\n" * 40)
    (entry,) = listed(tmp_path / "a.tar")[0]
    assert "expected a whole tar" in entry.record.problem


def test_the_columns_beside_a_picture_come_with_it_whatever_their_order(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        [
            *(("x/1.json", b'{"caption": "one", "tags": ["a"]}'), ("x/1.jpg", b"1"), ("x/1.cls", b"7\n")),
            *(("x/2.jpg", b"2"), ("x/2.txt", b"two\n"), ("x/notes.md", b"none of ours")),
        ],
    )
    entries, notes = listed(tmp_path / "a.tar", "caption", "tags", "txt", "cls", "__key__")
    assert [dict(entry.kept) for entry in entries] == [
        {"caption": "one", "tags": ["a"], "txt": None, "cls": 7, "__key__": "x/1"},
        {"caption": None, "tags": None, "txt": "two", "cls": None, "__key__": "x/2"},
    ]
    assert notes.num_ignored == 1


def test_a_neighbour_that_is_not_what_it_says_leaves_null_and_a_note(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.jpg", b"1"), ("1.json", b"{broken"), ("2.jpg", b"2"), ("2.json", b'{"a": 1}')])
    entries, notes = listed(tmp_path / "a.tar", "a")
    assert [entry.kept["a"] for entry in entries] == [None, 1]
    assert "1.json: not what its extension says" in notes.problems[0]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_kept_in_every_format_of_tar(tmp_path, format_):
    long = "d" * 90 + "/" + "ü" * 40 + ".jpg"
    write_tar(tmp_path / "a.tar", [(long, b"1"), ("2.JPG", b"2")], format=format_)
    assert [entry.uri.rpartition("#")[2] for entry in listed(tmp_path / "a.tar")[0]] == [long, "2.JPG"]


def test_the_memory_of_a_listing_does_not_grow_with_the_tar(tmp_path):
    def peak(num_members: int) -> int:
        path = tmp_path / f"{num_members}.tar"
        write_tar(path, [(f"{number}.jpg", b"x") for number in range(num_members)])
        tracemalloc.start()
        for _ in list_inputs(open_inputs([str(path)]), ListingNotes()):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(4000) < 1.2 * peak(400) + 20_000

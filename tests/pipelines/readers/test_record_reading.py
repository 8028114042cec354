import dataclasses
import gzip
import io
import os
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from containers import bytes_parquet, tar_bytes

from pipelines.readers import InputEntry, ListingNotes, list_inputs, open_inputs
from pipelines.readers.open_container import DamagedContainerError, ReplacedContainerError
from pipelines.readers.parquet_rows import ParquetRows
from pipelines.readers.record_reading import Containers

PICTURES = {f"{number:03d}.jpg": os.urandom(3000 + number) for number in range(40)}
WRITERS = {
    "a.tar": tar_bytes,
    "a.tar.gz": lambda pictures: gzip.compress(tar_bytes(pictures)),
    "a.parquet": bytes_parquet,
}


def listed(place: str) -> list[InputEntry]:
    return list(list_inputs(open_inputs([place]), ListingNotes()))


def read(containers: Containers, entry: InputEntry) -> bytes:
    record: Mapping[str, Any] = dataclasses.asdict(entry.record)
    return containers.read(record, size_bytes=entry.size_bytes, planned_stamp=entry.etag_or_mtime)


@pytest.fixture(params=["here", "behind a url"])
def write(request, tmp_path):
    """Store bytes under a name; the path or url."""
    root = str(tmp_path) if request.param == "here" else f"memory://{uuid.uuid4().hex}"

    def store(name: str, content: bytes) -> str:
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(content)
        return f"{root}/{name}"

    return store


@pytest.mark.parametrize("name", WRITERS)
def test_many_records_of_a_container_in_any_order_and_by_many_threads_cost_one_opening(write, name):
    entries = listed(write(name, WRITERS[name](PICTURES)))
    containers = Containers()
    expected = list(PICTURES.values())
    found: dict[int, bytes] = {}

    def work(numbers: list[int]) -> None:
        for number in numbers:
            found[number] = read(containers, entries[number])

    order = np.random.default_rng(0).permutation(len(entries)).tolist()
    threads = [threading.Thread(target=work, args=(order[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(entries))] == expected
    assert containers.num_opened == 1


@pytest.mark.parametrize("name", WRITERS)
def test_only_some_containers_stay_open(tmp_path, name):
    places = []
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        places.append(tmp_path / str(number) / name)
        places[-1].write_bytes(WRITERS[name](PICTURES))
    entries = [listed(str(place))[0] for place in places]
    containers = Containers(most_open=2)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for entry in entries:
            assert read(containers, entry) == PICTURES["000.jpg"]
    assert containers.num_opened == 12
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 2  # a compressed tar has a temporary file beside it


@pytest.mark.parametrize("name", WRITERS)
def test_a_container_that_was_replaced_is_not_read(write, name):
    place = write(name, WRITERS[name](PICTURES))
    entry = listed(place)[5]
    other = {key: os.urandom(len(content)) for key, content in PICTURES.items()}
    write(name, WRITERS[name](other))
    if "://" not in place:
        os.utime(place, ns=(1, 1))
    with pytest.raises(ReplacedContainerError, match="expected the one that was planned"):
        read(Containers(), entry)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_record_behind_the_end_of_a_cut_tar_is_damage_and_those_before_it_are_read(write, name):
    whole = WRITERS[name](PICTURES)
    place = write(name, whole)
    entries = [dataclasses.replace(entry, etag_or_mtime=None) for entry in listed(place)]
    write(name, whole[: len(whole) // 2])
    containers = Containers()
    assert read(containers, entries[0]) == PICTURES["000.jpg"]
    with pytest.raises(DamagedContainerError, match="Copy"):
        read(containers, entries[-1])


def test_a_damaged_page_costs_its_row_group_and_no_other(tmp_path):
    content = bytearray(bytes_parquet(PICTURES, row_group_size=20, write_page_checksum=True))
    metadata = pq.ParquetFile(io.BytesIO(bytes(content))).metadata.row_group(0).column(0)
    start = metadata.dictionary_page_offset or metadata.data_page_offset
    middle = start + metadata.total_compressed_size // 2
    content[middle : middle + 8] = b"\xff" * 8
    (tmp_path / "a.parquet").write_bytes(bytes(content))
    entries = listed(str(tmp_path / "a.parquet"))
    containers = Containers()
    with pytest.raises(DamagedContainerError, match="expected readable rows"):
        read(containers, entries[19])
    assert read(containers, entries[25]) == PICTURES["025.jpg"]


def test_null_instead_of_a_picture_is_damage(tmp_path):
    pq.write_table(pa.table({"image": pa.array([b"x", None], pa.binary())}), tmp_path / "a.parquet")
    entries = listed(str(tmp_path / "a.parquet"))
    assert read(Containers(), entries[0]) == b"x"
    with pytest.raises(DamagedContainerError, match="got null"):
        read(Containers(), entries[1])


def test_rows_in_order_are_decoded_once_and_little_of_them_stays_in_memory(tmp_path):
    num_rows, row_bytes = 600, 100_000
    column = pa.array([os.urandom(row_bytes) for _ in range(num_rows)], pa.binary())
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet", row_group_size=num_rows, write_batch_size=8)
    del column
    rows = ParquetRows(str(tmp_path / "a.parquet"))
    before = pa.total_allocated_bytes()
    most = 0
    for row in range(num_rows):
        assert len(rows.read({"column": "image", "row_group": 0, "row": row}, None)) == row_bytes
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 50_000_000 < num_rows * row_bytes
    rows.close()

"""1,000 inputs with 37 corrupted in twelve ways: 963 rows and 37 reasons, however the work is cut."""

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import bad_pictures, png
from tiny_runs import TinyRun

NUM_INPUTS, NUM_CORRUPTED = 1000, 37

#: Twelve ways, by the names of `pictures.bad_pictures`.
WAYS = (
    "zero_bytes",
    "truncated_jpeg_60",
    "png_without_its_last_byte",
    "truncated_webp",
    "html_called_jpg.jpg",
    "noise",
    "heic",
    "header_of_50000x50000_png",
    "zero_wide_png",
    "wrong_checksum_png",
    "noise_after_a_jpeg_header",
    "float_tiff",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder, and how often each class of error must be in quarantine."""
    folder = tmp_path_factory.mktemp("corpus")
    cases = {case.name: case for case in bad_pictures()}
    rng = np.random.default_rng(37)
    corrupted = set(rng.choice(NUM_INPUTS, NUM_CORRUPTED, replace=False).tolist())
    classes: Counter[str] = Counter()
    for number in range(NUM_INPUTS):
        if number in corrupted:
            case = cases[WAYS[sum(classes.values()) % len(WAYS)]]
            classes[case.outcome] += 1
            content = case.encoded
        else:
            content = png(4, 4, 8, 2, rng.bytes(48))
        (folder / f"{number:04d}.png").write_bytes(content)
    return folder, classes


@pytest.fixture(scope="module")
def oracle(corpus, tiny_model_dir, tmp_path_factory):
    """Content of the run by the local engine with its defaults."""
    run = TinyRun.over(corpus[0], tmp_path_factory.mktemp("oracle") / "run", tiny_model_dir, num_shards=4)
    run.run(run.local())
    return run.parts()


def check_counts(run: TinyRun, classes: Counter[str]) -> None:
    assert pq.read_table(run.folder / "data").num_rows == NUM_INPUTS - NUM_CORRUPTED
    quarantine = pq.read_table(run.folder / "quarantine").to_pylist()
    assert Counter(row["error_class"] for row in quarantine) == classes
    assert len(quarantine) == NUM_CORRUPTED
    assert all(row["message"] for row in quarantine)


def test_the_corpus_is_corrupted_in_twelve_ways(corpus):
    _, classes = corpus
    assert len(WAYS) == len(set(WAYS)) == 12
    assert sum(classes.values()) == NUM_CORRUPTED
    assert len(classes) == 8


@pytest.mark.parametrize(
    ("engine", "batch_size", "settings"),
    [
        ("local", 8, {"rows_per_chunk": 1}),
        ("local", 8, {"rows_per_chunk": 1000}),
        ("local", 64, {"rows_per_chunk": 7}),
        pytest.param("beam", 8, {"rows_per_chunk": 8}, marks=pytest.mark.engine),
        pytest.param("beam", 64, {"rows_per_chunk": 50}, marks=pytest.mark.engine),
        pytest.param("ray", 8, {"max_actors": 2}, marks=pytest.mark.engine),
        pytest.param("ray", 64, {"max_actors": 1}, marks=pytest.mark.engine),
    ],
)
def test_963_rows_are_kept_at_any_block_and_batch_size(
    corpus, oracle, tmp_path, tiny_model_dir, engine, batch_size, settings, request
):
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    folder, classes = corpus
    run = TinyRun.over(folder, tmp_path / "run", tiny_model_dir, num_shards=4, batch_size=batch_size)
    run.run(getattr(run, engine)(**settings))
    check_counts(run, classes)
    if batch_size == 8:
        assert run.parts() == oracle

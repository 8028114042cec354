"""Every engine gives the bytes of the local one, which is their oracle: add an engine to `ENGINES` and run this."""

import shutil

import pyarrow.parquet as pq
import pytest
from runs import files_below, write_pictures

from jobs.cli import main

#: Engine -> its flags for a number of workers.
ENGINES = {
    "ray": lambda num_workers: ["--engine", "ray", "--num-workers", str(num_workers)],
    # Two are processes; seven are threads of this one, for each process imports torch and Beam anew.
    "beam": lambda num_workers: [
        *("--engine", "beam", "--num-workers", str(num_workers)),
        *(("--", "--direct_running_mode=multi_threading") if num_workers == 7 else ()),
    ],
}

NUM_GOOD, NUM_SHARDS = 58, 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """60 pictures, 2 of them corrupted: one cut off, one no picture at all."""
    folder = write_pictures(tmp_path_factory.mktemp("corpus") / "photos", NUM_GOOD)
    whole = (folder / "picture-000.png").read_bytes()
    (folder / "cut-off.png").write_bytes(whole[: len(whole) // 2])
    (folder / "garbage.png").write_bytes(b"garbage")
    return folder


@pytest.fixture(scope="module")
def words(corpus, tiny_model_dir):
    """The command, but for engine and --out."""
    return ["tokenize", str(corpus), "--model", str(tiny_model_dir), "--num-shards", str(NUM_SHARDS)]


@pytest.fixture(scope="module")
def oracle(words, tmp_path_factory):
    """The local engine's run."""
    run = tmp_path_factory.mktemp("oracle") / "run"
    assert main([*words, "--out", str(run)]) == 0
    return run


def parts(run) -> dict[str, bytes]:
    return {name: data for name, data in files_below(run).items() if name.startswith(("data/", "quarantine/"))}


@pytest.fixture(autouse=True)
def its_cluster(flags, request):
    """Ray's cluster for Ray alone: the others need not wait for it."""
    if "ray" in flags(1):
        request.getfixturevalue("ray_cluster")


@pytest.mark.engine
@pytest.mark.parametrize("flags", ENGINES.values(), ids=ENGINES)
class TestEveryEngine:
    @pytest.mark.parametrize("num_workers", [1, 2, 7])
    def test_gives_the_bytes_of_the_local_one_for_any_number_of_workers(
        self, flags, num_workers, words, oracle, tmp_path
    ):
        run = tmp_path / "run"
        assert main([*words, "--out", str(run), *flags(num_workers)]) == 0
        assert parts(run) == parts(oracle)
        assert len(parts(run)) == 2 * NUM_SHARDS
        # Two corrupted pictures of sixty cost two rows, not their whole blocks.
        assert sum(pq.read_metadata(path).num_rows for path in (run / "data").iterdir()) == NUM_GOOD
        assert main(["verify", str(run)]) == 0

    def test_goes_on_with_a_run_that_another_engine_left(self, flags, words, oracle, tmp_path):
        run = tmp_path / "run"
        shutil.copytree(oracle, run)
        for name in ("data/part-00001.parquet", "data/part-00003.parquet", "manifest.json", "_SUCCESS"):
            (run / name).unlink()
        kept = (run / "data" / "part-00000.parquet").stat().st_mtime_ns
        assert main([*words, "--out", str(run), *flags(2)]) == 0
        assert parts(run) == parts(oracle)
        assert (run / "data" / "part-00000.parquet").stat().st_mtime_ns == kept

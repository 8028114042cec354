"""Beam's driver killed while it commits, and the same place used with other settings: never a row too many."""

import signal

import pyarrow.parquet as pq
import pytest
from runs import files_below, spae_process, wait_for, write_pictures

from jobs.cli import main

pytestmark = pytest.mark.engine

NUM_PICTURES, NUM_SHARDS = 100, 12
BEAM = ["--engine", "beam"]


@pytest.fixture
def words(tmp_path, tiny_model_dir):
    """The command, but for shards, engine and --out."""
    folder = write_pictures(tmp_path / "photos", NUM_PICTURES)
    (folder / "bad.png").write_bytes(b"garbage")
    return ["tokenize", str(folder), "--model", str(tiny_model_dir)]


def parts(run) -> dict[str, bytes]:
    return {name: data for name, data in files_below(run).items() if name.startswith(("data/", "quarantine/"))}


def num_rows(run) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (run / "data").iterdir())


def test_killed_while_it_commits_and_run_again_gives_the_rows_of_an_unbroken_run(tmp_path, words):
    words = [*words, "--num-shards", str(NUM_SHARDS)]
    assert main([*words, "--out", str(tmp_path / "unbroken")]) == 0
    run = tmp_path / "killed"
    process = spae_process(*words, *BEAM, "--out", run)
    wait_for(run / "quarantine" / "part-00001.parquet", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"
    assert not (run / "_SUCCESS").exists()
    assert main([*words, *BEAM, "--out", str(run)]) == 0
    assert parts(run) == parts(tmp_path / "unbroken")
    assert num_rows(run) == NUM_PICTURES
    assert main(["verify", str(run)]) == 0


def test_fewer_shards_in_the_same_place_are_refused_and_never_double_the_rows(tmp_path, words, capsys):
    run = tmp_path / "run"
    assert main([*words, *BEAM, "--out", str(run), "--num-shards", "6"]) == 0
    assert main([*words, *BEAM, "--out", str(run), "--num-shards", "3"]) == 2
    assert "the same ones dealt to other shards" in capsys.readouterr().err
    assert main([*words, *BEAM, "--out", str(run), "--num-shards", "6"]) == 0
    assert num_rows(run) == NUM_PICTURES
    assert len(list((run / "data").iterdir())) == 6


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tokenize", "x", "--out", "y", "--", "--runner=FlinkRunner"], "expected --engine beam with them"),
        (["verify", "x", "--", "--runner=FlinkRunner"], "options after --: expected none for this command"),
        (["tokenize", "x", "--out", "y", *BEAM, "--", "--projct=z"], "expected options of Apache Beam, got --projct"),
    ],
)
def test_words_after_the_dashes_go_to_beam_or_are_refused(command, message, capsys):
    assert main(command) == 2
    assert message in capsys.readouterr().err

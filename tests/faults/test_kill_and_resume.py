"""Runs that end in the middle, by `kill -9`, Ctrl-C or SIGTERM, and are started again."""

import errno
import json
import os
import signal
import subprocess
import tarfile
import time

import pyarrow.parquet as pq
import pytest
from runs import files_below, spae_process, wait_for, write_pictures

from jobs.cli import main

NUM_PICTURES, NUM_SHARDS = 100, 5


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", NUM_PICTURES, num_bad=3)


@pytest.fixture
def words(photos, tiny_model_dir):
    """The command, but for --out."""
    return ["tokenize", str(photos), "--model", str(tiny_model_dir), "--num-shards", str(NUM_SHARDS), "--out"]


def check_whole(run) -> int:
    """Every file under data/ and quarantine/ is a whole one with its final name; the number of shards committed."""
    for path in run.glob("data/*"):
        footer = pq.read_table(path).schema.metadata
        assert int(footer[b"spae.num_ok"]) == pq.read_metadata(path).num_rows
        assert (run / "quarantine" / path.name).exists()
    assert all(path.name.startswith("part-0000") for path in [*run.glob("data/*"), *run.glob("quarantine/*")])
    return len(list(run.glob("data/*")))


def same_but_for_timings(one: dict[str, bytes], two: dict[str, bytes]) -> bool:
    manifests = []
    for files in (one, two):
        manifest = json.loads(files["manifest.json"])
        for key in ("num_processed", "wall_seconds", "images_per_second", "stages", "bottleneck"):
            del manifest[key]
        config = json.loads(files["config.json"])
        del config["command"]
        manifests.append((manifest, config))
    others = [
        {name: data for name, data in files.items() if name not in ("manifest.json", "config.json")}
        for files in (one, two)
    ]
    return manifests[0] == manifests[1] and others[0] == others[1]


def test_killed_again_and_again_and_finished_gives_the_bytes_of_an_unbroken_run(tmp_path, words):
    assert main([*words, str(tmp_path / "unbroken")]) == 0
    run = tmp_path / "killed"
    num_committed = []
    for moment in ("config.json", "quarantine/part-00001.parquet"):
        process = spae_process(*words, run)
        wait_for(run / moment, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"
        num_committed.append(check_whole(run))
        assert not (run / "_SUCCESS").exists()
    assert num_committed == sorted(num_committed)
    assert num_committed[-1] < NUM_SHARDS
    assert main([*words, str(run)]) == 0
    assert same_but_for_timings(files_below(tmp_path / "unbroken"), files_below(run))
    assert main(["verify", str(run)]) == 0


def test_killed_in_the_middle_of_files_of_many_rows_it_still_gives_all_240(tmp_path, tiny_model_dir):
    """One input gives many rows, and it is cut anywhere: a row is planned, not its file."""
    photos = write_pictures(tmp_path / "photos", 240)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for number in range(6):
        with tarfile.open(inputs / f"{number}.tar", "w") as tar:
            for path in sorted(photos.iterdir())[number * 40 : (number + 1) * 40]:
                tar.add(path, path.name)
    run = tmp_path / "run"
    words = ["tokenize", str(inputs), "--model", str(tiny_model_dir), "--num-shards", "8", "--out", str(run)]
    process = spae_process(*words)
    wait_for(run / "data" / "part-00002.parquet", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"
    assert main(words) == 0
    assert len(set(pq.read_table(run / "data")["uri"].to_pylist())) == pq.read_table(run / "data").num_rows == 240
    assert main(["verify", str(run)]) == 0


@pytest.mark.parametrize(
    ("sent", "exit_code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_says_how_to_go_on_and_leaves_nothing_half_written(tmp_path, words, sent, exit_code):
    run = tmp_path / "run"
    process = spae_process(*words, run)
    wait_for(run / "data" / "part-00000.parquet", process)
    process.send_signal(sent)
    _, err = process.communicate()
    assert process.returncode == exit_code, err
    num_committed = check_whole(run)
    assert 1 <= num_committed < NUM_SHARDS
    assert f"interrupted: {num_committed} of {NUM_SHARDS} shards are committed and kept" in err
    assert "Run the same command again to go on." in err
    assert "Traceback" not in err
    assert list((run / ".tmp").iterdir()) == []
    assert main([*words, str(run)]) == 0
    assert not (run / ".tmp").exists()


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["ray", "beam"])
def test_a_terminated_run_of_another_engine_ends_in_good_order_too(tmp_path, words, engine):
    run = tmp_path / "run"
    process = spae_process(*words, run, "--engine", engine)
    assert any(line.startswith("tokenizing: ") for line in process.stderr)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert f"interrupted: {check_whole(run)} of {NUM_SHARDS} shards are committed and kept" in err
    assert "Traceback" not in err
    assert main([*words, str(run)]) == 0
    assert main(["verify", str(run)]) == 0


def open_for_its_reader(pipe, process) -> int:
    """Open a named pipe for writing as soon as the process reads it, which then waits for what is never written."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no reader yet
                raise
        time.sleep(0.05)
    raise AssertionError(f"the run ended: {process.communicate()[1]}")


def test_a_second_signal_ends_the_process_at_once_and_loses_nothing(tmp_path, words):
    run, hung = tmp_path / "run", tmp_path / "photos" / "a-pipe.png"
    os.mkfifo(tmp_path / "pipe")  # Whoever reads it waits for ever, as for a bucket that does not answer.
    hung.symlink_to(tmp_path / "pipe")
    process = spae_process(*words, run, "--num-threads", "1")
    written_to = open_for_its_reader(tmp_path / "pipe", process)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    os.close(written_to)
    hung.unlink()
    check_whole(run)


def test_two_drivers_at_once_make_one_run(tmp_path, words):
    processes = [spae_process(*words, tmp_path / "run") for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert main([*words, str(tmp_path / "alone")]) == 0
    assert same_but_for_timings(files_below(tmp_path / "alone"), files_below(tmp_path / "run"))

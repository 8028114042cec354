import time

import pytest
import torch
from runs import spae_process, write_pictures

from jobs.cli import main
from jobs.engine_choice import EngineChoice
from pipelines.errors import UsageError


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_workers": 2}, r"--num-workers: expected --engine ray or beam with it, got --engine local"),
        ({"name": "ray", "num_threads": 2}, r"--num-threads: expected --engine local with it, got --engine ray"),
        ({"ray_address": "auto"}, r"--ray-address: expected --engine ray"),
        ({"name": "ray", "num_workers": 0}, r"--num-workers: expected at least 1, got 0"),
        ({"name": "ray", "gpus_per_actor": 1.5}, r"--gpus-per-actor: expected a share in \(0, 1\], got 1\.5"),
    ],
)
def test_flags_that_would_do_nothing_or_mean_nothing_are_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        EngineChoice(**flags)


def test_a_share_of_a_gpu_and_a_cpu_contradict_each_other():
    with pytest.raises(UsageError, match=r"got 0\.5 with --device cpu"):
        EngineChoice(name="ray", gpus_per_actor=0.5).device("cpu")


def test_each_copy_on_a_gpu_has_one_unless_a_share_is_given():
    assert EngineChoice(name="ray").gpu_fraction("cuda") == 1.0
    assert EngineChoice(name="ray", gpus_per_actor=0.5).gpu_fraction("cuda:0") == 0.5
    assert EngineChoice(name="ray").gpu_fraction("cpu") == 0.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that is asked for")
def test_a_gpu_that_is_not_there_is_told_at_once_with_exit_code_2(tmp_path, tiny_model_dir, capsys):
    photos = write_pictures(tmp_path / "photos", 1)
    started = time.perf_counter()
    words = ["tokenize", str(photos), "--model", str(tiny_model_dir), "--out", str(tmp_path / "run")]
    assert main([*words, "--engine", "ray", "--gpus-per-actor", "0.5"]) == 2
    assert time.perf_counter() - started < 10
    err = capsys.readouterr().err
    assert "--gpus-per-actor: expected a GPU that torch can use, got a machine of" in err
    assert "for the 0.5 asked for each copy" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.engine
def test_a_cluster_that_is_not_there_is_a_mistake_of_the_user(tmp_path, tiny_model_dir):
    photos = write_pictures(tmp_path / "photos", 1)
    words = ["tokenize", photos, "--model", tiny_model_dir, "--out", tmp_path / "run"]
    process = spae_process(*words, "--engine", "ray", "--ray-address", "127.0.0.1:1")
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert "spae: --ray-address: expected a Ray cluster at 127.0.0.1:1, got: " in err
    assert not (tmp_path / "run").exists()

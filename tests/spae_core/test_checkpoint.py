"""Checkpoints: whole or absent, only the newest kept, and refused when damaged or of another run."""

import pytest
import torch

from spae_core.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint, save_checkpoint
from spae_core.errors import ModelError

IDENTITY = {"config": {"name": "tiny", "grids": ((1, 1), (4, 4))}, "recipe": {"seed": 0}, "num_crops": 8}
STATE = {"model": {"weight": torch.arange(4.0)}, "optimizer": {"lr": 1e-3, "step": torch.tensor(3)}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = save_checkpoint(tmp_path / "run", 7, IDENTITY, STATE)
    assert path == checkpoint_path(tmp_path / "run", 7)
    step, state = load_checkpoint(path, IDENTITY)
    assert step == 7
    assert torch.equal(state["model"]["weight"], torch.arange(4.0))
    assert state["optimizer"] == {"lr": 1e-3, "step": torch.tensor(3)}


def test_the_newest_two_are_kept_in_order_and_strange_files_are_left_alone(tmp_path):
    (tmp_path / "checkpoint-best.pt").write_bytes(b"mine")
    for step in (9, 100, 11):
        save_checkpoint(tmp_path, step, IDENTITY, STATE)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 11), checkpoint_path(tmp_path, 100)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-00000011.pt",
        "checkpoint-00000100.pt",
        "checkpoint-best.pt",
    ]


def test_an_unfinished_checkpoint_is_not_listed(tmp_path):
    save_checkpoint(tmp_path, 5, IDENTITY, STATE)
    checkpoint_path(tmp_path, 6).with_suffix(".partial").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 5)]
    assert list_checkpoints(tmp_path / "absent") == []


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, share):
    path = save_checkpoint(tmp_path, 5, IDENTITY, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=f"{path}: expected a whole checkpoint"):
        load_checkpoint(path, IDENTITY)


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path):
    path = checkpoint_path(tmp_path, 1)
    with pytest.raises(ModelError, match=str(path)):
        load_checkpoint(path, IDENTITY)
    path.write_bytes(b"\x80\x02no checkpoint")
    with pytest.raises(ModelError, match=str(path)):
        load_checkpoint(path, IDENTITY)
    for content in ([1, 2], {"step": 3}, {"step": 1, "state": {}, "identity": "no json"}):
        torch.save(content, path)
        with pytest.raises(ModelError, match=str(path)):
            load_checkpoint(path, IDENTITY)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"num_crops": 9}, ("num_crops", "expected 9, got 8")),
        ({"recipe": {"seed": 5}}, ("recipe", "{'seed': 5}", "{'seed': 0}")),
        ({"codebook_sha256": "abc"}, ("codebook_sha256", "expected abc, got None")),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_both_values(tmp_path, change, values):
    path = save_checkpoint(tmp_path, 5, IDENTITY, STATE)
    with pytest.raises(ModelError, match="another run") as caught:
        load_checkpoint(path, IDENTITY | change)
    assert all(value in str(caught.value) for value in values)
    assert "config" not in str(caught.value)

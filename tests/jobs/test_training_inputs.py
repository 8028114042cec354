"""What is kept of a crop set for the next start of a training."""

import pytest
import torch
from training_runs import smooth_crops

from jobs.training_inputs import rank_crops
from spae_core.training_batches import TrainingData


def test_crops_are_named_once_and_others_anew(naming_tokenizer, tmp_path, monkeypatch: pytest.MonkeyPatch):
    crops = smooth_crops()
    data = TrainingData(crops=crops, crops_sha256="a" * 64)
    named = rank_crops(naming_tokenizer, data, tmp_path)
    assert named.shape == (len(crops), 1 + 4 + 16)
    as_many_others = TrainingData(crops=crops[::-1], crops_sha256="b" * 64)
    assert torch.equal(rank_crops(naming_tokenizer, as_many_others, tmp_path), named.flip(0))
    monkeypatch.setattr(naming_tokenizer, "rank_words", None)  # would be called for crops that are not kept
    assert torch.equal(rank_crops(naming_tokenizer, data, tmp_path), named)

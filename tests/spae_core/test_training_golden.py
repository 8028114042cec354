"""Losses of the first steps against numbers written down once: rearranging the trainer must not change one.

The numbers are kept at full precision. Other processors round otherwise, so they are compared to within 1e-4;
`SPAE_GOLDEN=exact` compares to the bit, on the machine where `SPAE_GOLDEN=write` wrote them before a change.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize
from training_runs import plain_recipe, small_recipe, smooth_crops, trainer_of

from spae_core.configs import RankedWordsConfig, SpaeConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.perceptual import Lpips
from spae_core.presets import preset
from spae_core.tokenizer import SpaeTokenizer
from spae_core.trainer import Trainer
from spae_core.training_batches import TrainingData
from spae_core.training_config import tiny_recipe

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
MODE = os.environ.get("SPAE_GOLDEN", "close")
NUM_STEPS = 4


def all_of_the_paper(codebook: LexicalCodebook, folder: Path) -> Trainer:
    """Whole pictures; every term of the paper's loss, and entropy."""
    generator = torch.Generator().manual_seed(0)
    images, words = (normalize(torch.randn(rows, 6, generator=generator), dim=1) for rows in (8, 64))
    recipe = small_recipe(
        num_steps=NUM_STEPS,
        perceptual_weight=0.1,
        perceptual_net="alex",
        perceptual_pictures=3,
        entropy_weight=0.01,
        entropy_cells=20,
        layer_dropout=0.5,
        semantic=replace(tiny_recipe().semantic, weight=1.0, num_layers=3, max_cells=10),
    )
    torch.manual_seed(1)
    data = TrainingData(crops=smooth_crops(), image_features=images, word_features=words)
    return trainer_of(folder, codebook, recipe, data=data, lpips=Lpips("alex"))


def windows_beside_a_head(codebook: LexicalCodebook, folder: Path) -> Trainer:
    """Windows, words given by a head, a trained projection on a falling spectrum, nearest candidates."""
    tiny = preset("tiny")
    quantizer = replace(tiny.quantizer, trainable_projection=True, axis_decay=1.0, commitment_reduction="mean")
    config: SpaeConfig = replace(
        tiny,
        quantizer=quantizer,
        ownership_embedding=True,
        ranked_words=RankedWordsConfig(num_layers=2, text_dim=4, hidden_dim=4, num_classes=3),
    )
    ranked = (torch.arange(5)[None] + 5 * torch.arange(8)[:, None]) % 64
    data = TrainingData(crops=smooth_crops(), given=SpaeTokenizer(config, codebook).place_words(ranked))
    recipe = plain_recipe(
        num_steps=NUM_STEPS, window_cells=3, entropy_weight=0.01, entropy_cells=20, layer_dropout=0.5, batch_size=6
    )
    return trainer_of(folder, codebook, recipe, config=config, data=data)


@pytest.mark.parametrize("run", [all_of_the_paper, windows_beside_a_head], ids=lambda run: run.__name__)
def test_the_first_steps_have_the_losses_they_always_had(tiny_codebook, tmp_path, run):
    losses = [report.losses for report in run(tiny_codebook, tmp_path).steps()]
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if MODE == "write":
        GOLDEN.write_text(json.dumps(golden | {run.__name__: losses}, indent=1) + "\n")
        pytest.skip("numbers written, nothing compared")
    expected = golden[run.__name__]
    assert len(losses) == len(expected) == NUM_STEPS
    for step, (found, wanted) in enumerate(zip(losses, expected, strict=True), 1):
        assert found == (wanted if MODE == "exact" else pytest.approx(wanted, rel=1e-4, abs=1e-7)), f"step {step}"

"""The terms of the training loss: each enters with its weight, and its options train."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from training_runs import plain_recipe, small_recipe, smooth_crops, stored, trainer_of

from spae_core.configs import RankedWordsConfig, SpaeConfig
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.perceptual import Lpips
from spae_core.presets import preset
from spae_core.tokenizer import SpaeTokenizer
from spae_core.trainer import StepReport
from spae_core.training_batches import TrainingData
from spae_core.training_config import tiny_recipe


def unit_rows(rows: int, seed: int) -> Tensor:
    return normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


def guided_data() -> TrainingData:
    return TrainingData(crops=smooth_crops(), image_features=unit_rows(8, 0), word_features=unit_rows(64, 1))


def test_every_term_enters_the_total_with_its_weight(tiny_codebook, tmp_path):
    torch.manual_seed(5)
    recipe = small_recipe(
        num_steps=3, reconstruction_weight=2.0, perceptual_weight=0.5, perceptual_net="alex", entropy_weight=0.25
    )
    trainer = trainer_of(tmp_path, tiny_codebook, recipe, lpips=Lpips("alex"))
    for report in trainer.steps():
        terms = report.losses
        assert min(terms["perceptual"], terms["commitment"], terms["adversarial"]) > 0
        assert terms["entropy"] < 0
        expected = 2 * terms["reconstruction"] + terms["commitment"] + 0.5 * terms["perceptual"]
        expected += 0.25 * terms["entropy"] + 0.1 * terms["adversarial"]
        assert terms["total"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rule", ["threshold", "nearest"])
def test_the_semantic_loss_is_scaled_to_the_appearance_loss(tiny_codebook, tmp_path, rule):
    semantic = replace(tiny_recipe().semantic, weight=0.5, num_layers=2, rule=rule)
    trainer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=2, semantic=semantic), data=guided_data())
    for report in trainer.steps():
        appearance = report.losses["reconstruction"] + report.losses["commitment"]
        assert report.losses["semantic"] > 0
        assert report.losses["total"] == pytest.approx(1.5 * appearance, rel=1e-5)
    fixed = plain_recipe(num_steps=1, semantic=replace(semantic, dynamic_weight=False))
    (report,) = trainer_of(tmp_path / "b", tiny_codebook, fixed, data=guided_data()).steps()
    appearance = report.losses["reconstruction"] + report.losses["commitment"]
    assert report.losses["total"] == pytest.approx(appearance + 0.5 * report.losses["semantic"], rel=1e-5)


def test_semantic_guidance_brings_candidate_words_to_the_top_layer(tiny_codebook, tmp_path):
    semantic = replace(tiny_recipe().semantic, weight=3.0, num_layers=1, rule="nearest", nearest=(1,), temperature=0.05)
    recipe = plain_recipe(num_steps=80, semantic=semantic, learning_rate=3e-3, checkpoint_every=80)
    trainer = trainer_of(tmp_path, tiny_codebook, recipe, data=guided_data())
    reports = list(trainer.steps())
    assert reports[-1].losses["semantic"] < 0.5 * reports[0].losses["semantic"]
    images = torch.from_numpy(smooth_crops()).permute(0, 3, 1, 2) / 255
    top = trainer.model.eval().tokenize(images).code_indices[0].flatten()
    wanted = (unit_rows(8, 0) @ unit_rows(64, 1).T).argmax(dim=1)
    assert (top == wanted).float().mean() >= 0.5


def test_terms_that_start_later_are_absent_until_then(tiny_codebook, tmp_path):
    adversarial = replace(small_recipe().adversarial, start_step=2)
    recipe = small_recipe(
        num_steps=3,
        adversarial=adversarial,
        perceptual_weight=0.1,
        perceptual_net="alex",
        perceptual_start_step=1,
    )
    reports = list(trainer_of(tmp_path, tiny_codebook, recipe, lpips=Lpips("alex")).steps())
    assert ["perceptual" in report.losses for report in reports] == [False, True, True]
    assert ["adversarial" in report.losses for report in reports] == [False, False, True]
    assert ["discriminator" in report.losses for report in reports] == [False, False, True]


def test_weights_without_what_they_need_are_refused(tiny_codebook, tmp_path):
    with pytest.raises(ModelError, match="perceptual_weight"):
        trainer_of(tmp_path, tiny_codebook, plain_recipe(perceptual_weight=0.1))
    with pytest.raises(ModelError, match=r"semantic\.weight"):
        trainer_of(tmp_path, tiny_codebook, plain_recipe(semantic=replace(tiny_recipe().semantic, weight=1.0)))


def naming_config(num_layers: int = 2) -> SpaeConfig:
    ranked = RankedWordsConfig(num_layers=num_layers, text_dim=4, hidden_dim=4, num_classes=3)
    return replace(preset("tiny"), ranked_words=ranked, ownership_embedding=True)


def naming_data(codebook: LexicalCodebook, config: SpaeConfig) -> TrainingData:
    """The first words of the codebook, another rotation of them for each crop."""
    num_words = config.pyramid.cumulative_tokens[config.ranked_words.num_layers - 1]
    ranked = (torch.arange(num_words)[None] + 5 * torch.arange(8)[:, None]) % 64
    return TrainingData(crops=smooth_crops(), given=SpaeTokenizer(config, codebook).place_words(ranked))


def test_the_semantic_head_stays_as_it_is_and_out_of_the_checkpoint(tiny_codebook, tmp_path):
    config = naming_config()
    recipe = plain_recipe(num_steps=2, entropy_weight=0.01, window_cells=2, layer_dropout=0.5)
    trainer = trainer_of(tmp_path, tiny_codebook, recipe, config=config, data=naming_data(tiny_codebook, config))
    before = {name: value.clone() for name, value in trainer.model.ranked_words.state_dict().items()}
    list(trainer.steps())
    for name, value in trainer.model.ranked_words.state_dict().items():
        assert torch.equal(value, before[name]), name
    kept = stored(tmp_path, 2)["state"]
    assert not any(name.startswith("ranked_words") for name in [*kept["model"], *kept["averaged"]])
    assert any(name.startswith("encoder.ownership") for name in kept["model"])


def test_given_words_are_counted_as_the_top_layers(tiny_codebook, tmp_path):
    config = naming_config()
    trainer = trainer_of(
        tmp_path,
        tiny_codebook,
        plain_recipe(num_steps=1, batch_size=8),
        config=config,
        data=naming_data(tiny_codebook, config),
    )
    (report,) = trainer.steps()
    # Eight crops have eight different first words.
    assert report.perplexity[0] == pytest.approx(8)


def test_whole_pictures_train_with_every_prefix_of_layers_beside_a_semantic_head(tiny_codebook, tmp_path):
    config = naming_config(num_layers=3)
    recipe = plain_recipe(num_steps=6, layer_dropout=1.0, entropy_weight=0.01)
    trainer = trainer_of(tmp_path, tiny_codebook, recipe, config=config, data=naming_data(tiny_codebook, config))
    assert len(list(trainer.steps())) == 6


def test_windows_that_miss_the_top_layer_train_with_semantic_guidance(tiny_codebook, tmp_path):
    semantic = replace(tiny_recipe().semantic, weight=1.0, num_layers=3)
    recipe = plain_recipe(num_steps=6, window_cells=1, batch_size=1, semantic=semantic, matched_start=False)
    trainer = trainer_of(tmp_path, tiny_codebook, recipe, data=guided_data())
    reports = list(trainer.steps())
    assert len(reports) == 6
    assert max(report.losses.get("semantic", 0.0) for report in reports) > 0


def test_a_trained_projection_learns(tiny_codebook, tmp_path):
    plain = preset("tiny")
    config = replace(plain, quantizer=replace(plain.quantizer, trainable_projection=True))
    trainer = trainer_of(tmp_path, tiny_codebook, plain_recipe(num_steps=3), config=config)
    before = trainer.model.quantizer.projection.weight.detach().clone()
    reports: list[StepReport] = list(trainer.steps())
    assert reports[0].losses["codebook"] > 0
    assert not torch.equal(trainer.model.quantizer.projection.weight, before)
    reloaded = stored(tmp_path, 3)["state"]["model"]["quantizer.projection.weight"]
    assert torch.equal(reloaded, trainer.model.quantizer.projection.weight)

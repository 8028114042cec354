"""Presets and recipes that all build, configs that survive JSON, and bad ones refused with both values."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from spae_core.configs import NetworkConfig, PyramidConfig, QuantizerConfig, RankedWordsConfig, SpaeConfig
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.model_files import config_from_json, config_to_json
from spae_core.presets import PRESETS, preset
from spae_core.tokenizer import SpaeTokenizer
from spae_core.training_config import RECIPES, TrainingConfig


def codebook_of_four(embedding_dim: int) -> LexicalCodebook:
    return LexicalCodebook(
        embeddings=torch.zeros(4, embedding_dim),
        token_ids=(0, 1, 2, 3),
        words=("a", "b", "c", "d"),
        source="made up",
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_its_halves_fit_its_pyramid(name):
    config = preset(name)
    codebook = codebook_of_four(config.embedding_dim)
    with torch.device("meta"):  # shapes without numbers: the paper's models in milliseconds
        model = SpaeTokenizer.from_preset(name, codebook)
        images = torch.zeros(2, 3, config.image_size_px, config.image_size_px)
        owner = torch.zeros(config.pyramid.grid, dtype=torch.int64)
        latents = model.encoder(images, owner)
        assert model.decoder(latents, owner).shape == images.shape
    assert config.name == name
    assert latents.shape == (2, config.embedding_dim, *config.pyramid.grid)
    assert (model.ranked_words is None) == (config.ranked_words is None)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_recipe(name):
    assert isinstance(RECIPES[name](), TrainingConfig)
    assert RECIPES.keys() == PRESETS.keys()


def test_the_papers_presets_have_nothing_that_the_paper_has_not():
    for name in ("spae-b-128", "spae-8-128"):
        config, recipe = preset(name), RECIPES[name]()
        assert config.embedding_dim == 1536
        assert config.quantizer.kind == "saq"
        assert config.quantizer.commitment_weight == 0.33
        assert config.quantizer.commitment_reduction == "sum"
        assert not config.quantizer.trainable_projection
        assert not config.ownership_embedding
        assert config.ranked_words is None
        assert config.encoder == config.decoder == NetworkConfig()
        assert (recipe.batch_size, recipe.num_steps, recipe.window_cells) == (256, 450_000, 0)
        assert recipe.adversarial.weight == recipe.perceptual_weight == 0.1
        assert recipe.adversarial.lecam_weight == 1e-4
        assert recipe.semantic.thresholds == (0.98, 0.95, 0.90, 0.85, 0.80)
        assert (recipe.entropy_weight, recipe.layer_dropout, recipe.matched_start) == (0.0, 0.0, False)


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_comes_back_from_json_as_it_was(name):
    config = preset(name)
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_every_value_that_is_not_the_default_survives_json_too():
    config = replace(
        preset("tiny"),
        quantizer=replace(
            preset("tiny").quantizer,
            kind="residual",
            commitment_weight=0.5,
            commitment_reduction="mean",
            trainable_projection=True,
        ),
        ownership_embedding=True,
        ranked_words=preset("spae-smol-128").ranked_words,
    )
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_an_unknown_preset_is_refused_with_all_there_are():
    with pytest.raises(ModelError, match="got 'spae-xl'") as caught:
        preset("spae-xl")
    assert all(name in str(caught.value) for name in PRESETS)


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ((), "at least one layer, got none"),
        (((1, 1), (3, 3), (16, 16)), r"divide the latent grid 16×16, got .*Layer \(3, 3\)"),
        (((4, 4), (2, 2), (16, 16)), r"monotone .*Layer \(2, 2\)"),
        (((2, 4), (4, 2), (8, 8)), r"monotone .*Layer \(4, 2\)"),
        (((1, 1), (32, 32), (16, 16)), r"latent grid 16×16, got .*Layer \(32, 32\)"),
        (((-1, 1), (4, 4)), r"Layer \(-1, 1\)"),
        (((0, 1), (4, 4)), r"Layer \(0, 1\)"),
        (((0, 0),), r"Layer \(0, 0\)"),
    ],
)
def test_a_pyramid_that_does_not_fit_its_grid_is_refused(grids, message):
    with pytest.raises(ModelError, match=message):
        PyramidConfig(layer_grids=grids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": 48}, r"multiple of norm_groups \(32\), got 48"),
        ({"base_channels": 8, "norm_groups": 3}, r"multiple of norm_groups \(3\), got 8"),
        ({"patch_size_px": 3}, "power of 2, got 3"),
        ({"patch_size_px": 0}, "power of 2, got 0"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(options, message):
    with pytest.raises(ModelError, match=message):
        NetworkConfig(**options)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_network_whose_stride_misses_the_latent_grid_is_refused(half):
    with pytest.raises(ModelError, match=rf"{half}: expected 128 px .*\(16, 16\), got 32×32"):
        SpaeConfig(name="odd", **{half: NetworkConfig(channel_multipliers=(1, 2, 4))})
    with pytest.raises(ModelError, match=r"expected 100 px .*got 12\.5×12\.5"):
        SpaeConfig(name="odd", image_size_px=100)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("quantizer", "kind"), "vq", "'saq' or 'residual'"),
        (("image_size_px",), "large", "image_size_px"),
        (("encoder", "base_channels"), 12, r"multiple of norm_groups \(4\), got 12.*|power of 2"),
        (("pyramid", "layer_grids"), [[1, 1], [3, 3], [4, 4]], r"got \(\(1, 1\), \(3, 3\), \(4, 4\)\)"),
        (("name",), None, "name"),
    ],
)
def test_json_with_a_bad_value_is_refused(path, value, message):
    plain = config_to_json(preset("tiny"))
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if path == ("encoder", "base_channels"):
        plain["encoder"]["norm_groups"] = 5
        message = r"multiple of norm_groups \(5\), got 12"
    with pytest.raises(ModelError, match=message):
        config_from_json(plain)


def test_json_with_a_setting_of_no_known_name_is_refused():
    plain = config_to_json(preset("tiny"))
    with pytest.raises(ModelError, match="image_size"):
        config_from_json(plain | {"image_size": 64})
    with pytest.raises(ModelError, match="channels"):
        config_from_json(plain | {"encoder": plain["encoder"] | {"channels": 8}})


@pytest.mark.parametrize("plain", [None, [], "tiny", {}, {"nam": "tiny"}])
def test_json_that_is_no_config_is_refused(plain):
    with pytest.raises(ModelError, match="expected the settings of a SPAE model"):
        config_from_json(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "at least 1, got 0 and 256"),
        ({"batch_size": -2}, "at least 1, got 450000 and -2"),
        ({"layer_dropout": 1.5}, r"chance in \[0, 1\], got 1\.5"),
    ],
)
def test_a_recipe_that_cannot_step_is_refused(options, message):
    with pytest.raises(ModelError, match=message):
        TrainingConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "vq"}, "kind: expected 'saq' or 'residual', got 'vq'"),
        ({"commitment_reduction": "max"}, "commitment_reduction: expected 'sum' or 'mean', got 'max'"),
        ({"axis_decay": -1.0}, "axis_decay: expected a number of at least 0, got -1"),
        ({"axis_decay": float("nan")}, "axis_decay: .*got nan"),
    ],
)
def test_a_quantizer_of_no_known_kind_is_refused(options, message):
    with pytest.raises(ModelError, match=message):
        QuantizerConfig(**options)


@pytest.mark.parametrize("name", ["num_layers", "text_dim", "hidden_dim", "num_classes"])
def test_a_semantic_head_that_names_nothing_is_refused(name):
    with pytest.raises(ModelError, match=rf"ranked_words: expected .*at least 1, got .*{name}=0"):
        RankedWordsConfig(**{name: 0})


def test_a_semantic_head_for_more_layers_than_there_are_is_refused():
    assert replace(preset("tiny"), ranked_words=RankedWordsConfig(num_layers=4)).ranked_words is not None
    with pytest.raises(ModelError, match="ranked_words: expected num_layers of at most 4, got 5"):
        replace(preset("tiny"), ranked_words=RankedWordsConfig(num_layers=5))


def test_a_recipe_with_a_setting_of_no_known_name_is_refused():
    recipe, adapter = asdict(RECIPES["tiny"]()), TypeAdapter(TrainingConfig)
    assert adapter.validate_python(recipe) == RECIPES["tiny"]()
    for part in (recipe, recipe["semantic"], recipe["adversarial"]):
        part["learningrate"] = 1.0
        with pytest.raises(ValidationError, match="learningrate"):
            adapter.validate_python(recipe)
        del part["learningrate"]


def test_the_lqae_baseline_differs_from_the_shipped_model_in_its_tokens_alone():
    smol, lqae = preset("spae-smol-128"), preset("spae-lqae-128")
    assert (lqae.encoder, lqae.decoder, lqae.embedding_dim) == (smol.encoder, smol.decoder, smol.embedding_dim)
    assert RECIPES["spae-lqae-128"]() == RECIPES["spae-smol-128"]()
    assert lqae.pyramid.cumulative_tokens == (256,)
    assert lqae.ranked_words is None
    assert not lqae.ownership_embedding


def test_the_lqae_baseline_picks_the_word_of_largest_cosine_and_stands_for_nothing_but_it():
    generator = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(50, 32, generator=generator), dim=1)
    words = tuple(f"w{index}" for index in range(50))
    codebook = LexicalCodebook(embeddings=rows, token_ids=tuple(range(50)), words=words, source="made up")
    quantizer = SpaeTokenizer.from_preset("spae-lqae-128", codebook).quantizer
    latents = torch.randn(2, 32, 16, 16, generator=generator) * 5
    output = quantizer.quantize(latents)
    cosines = torch.nn.functional.cosine_similarity(
        latents.permute(0, 2, 3, 1)[..., None, :], codebook.embeddings[None, None, None], dim=-1
    )
    assert torch.equal(output.code_indices[0], cosines.argmax(dim=-1))
    torch.testing.assert_close(output.quantized, codebook.embeddings[output.code_indices[0]].permute(0, 3, 1, 2))

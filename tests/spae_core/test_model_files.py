"""A model folder: written the same each time, and refused when a part is absent, damaged or of another model."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.model_files import (
    CODEBOOK_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    config_to_json,
    hash_model,
    load_model,
    pretrained_names,
    save_model,
    serialize_weights,
)
from spae_core.presets import preset
from spae_core.tokenizer import SpaeTokenizer

ALL_FILES = (CONFIG_FILE, WEIGHTS_FILE, CODEBOOK_FILE)


@pytest.fixture
def folder(tiny_model_dir, tmp_path) -> Path:
    """A copy of the tiny model that may be damaged."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def edit_config(folder: Path, change: Callable[[dict], object]) -> None:
    description = json.loads((folder / CONFIG_FILE).read_text())
    change(description)
    (folder / CONFIG_FILE).write_text(json.dumps(description))


def test_what_is_loaded_is_what_was_saved(tiny_tokenizer, folder):
    files = load_model(folder)
    assert files.config == tiny_tokenizer.config
    assert files.codebook.sha256 == tiny_tokenizer.codebook.sha256
    assert files.model_sha256 == tiny_tokenizer.model_sha256
    saved = tiny_tokenizer.state_dict()
    assert files.weights.keys() == saved.keys()
    for name, tensor in files.weights.items():
        rounded = saved[name].half().float() if saved[name].ndim > 1 else saved[name]
        assert torch.equal(tensor, rounded), name
    assert any(tensor.ndim == 1 for tensor in saved.values())
    stored = load_file(folder / WEIGHTS_FILE)
    assert {tensor.dtype for tensor in stored.values() if tensor.ndim > 1} == {torch.float16}
    assert {tensor.dtype for tensor in stored.values() if tensor.ndim == 1} == {torch.float32}


def test_saving_what_was_loaded_gives_the_same_bytes(folder, tmp_path):
    SpaeTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ALL_FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_model_hash_changes_with_any_setting_or_weight(tiny_tokenizer):
    config, weights = tiny_tokenizer.config, tiny_tokenizer.state_dict()
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    changed["decoder.to_pixels.bias"][0] += 1e-3
    serialized = serialize_weights(weights)
    hashes = {
        hash_model(config, serialized),
        hash_model(config, serialize_weights(changed)),
        hash_model(preset("spae-b-128"), serialized),
    }
    assert len(hashes) == 3
    assert serialize_weights(dict(reversed(weights.items()))) == serialized


def test_how_it_came_to_be_is_kept_for_people(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path, training={"steps": 3, "data": "none"})
    assert json.loads((tmp_path / CONFIG_FILE).read_text())["training"] == {"steps": 3, "data": "none"}
    assert load_model(tmp_path).model_sha256 == tiny_tokenizer.model_sha256


def test_the_models_that_come_along_load_by_name():
    for name in pretrained_names():
        assert load_model(name).config.name == name


def test_an_unknown_name_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(ModelError, match="got 'no-such-model'") as caught:
        load_model("no-such-model")
    assert all(name in str(caught.value) for name in pretrained_names())
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_model(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CODEBOOK_FILE])
def test_an_absent_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"expected {name} beside"):
        load_model(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CODEBOOK_FILE])
@pytest.mark.parametrize("place", [0, 0.5, 0.99])
def test_a_flipped_bit_is_refused_with_both_hashes(folder, name, place):
    expected = json.loads((folder / CONFIG_FILE).read_text())["files"][name]
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: expected sha256 {expected}, got [0-9a-f]{{64}}") as caught:
        load_model(folder)
    assert str(caught.value).count(expected) == 1


def test_a_truncated_file_is_refused(folder):
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:-1])
    with pytest.raises(ModelError, match=f"{WEIGHTS_FILE}: expected sha256"):
        load_model(folder)


def test_the_codebook_of_another_model_is_refused_with_both_hashes(folder, tiny_codebook, tmp_path):
    other = LexicalCodebook(
        embeddings=tiny_codebook.embeddings.flip(0),
        token_ids=tiny_codebook.token_ids,
        words=tiny_codebook.words,
        source="another",
    )
    model = SpaeTokenizer.from_preset("tiny", other)
    model.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / CODEBOOK_FILE, folder / CODEBOOK_FILE)
    with pytest.raises(ModelError, match=f"{CODEBOOK_FILE}: expected sha256"):
        load_model(folder)
    # Even when somebody makes the file's hash fit.
    of_file = json.loads((tmp_path / "other" / CONFIG_FILE).read_text())["files"][CODEBOOK_FILE]
    edit_config(folder, lambda description: description["files"].update({CODEBOOK_FILE: of_file}))
    with pytest.raises(ModelError, match=f"expected sha256 {tiny_codebook.sha256}, got {other.sha256}"):
        load_model(folder)


def test_a_config_cut_anywhere_is_refused_by_name(folder):
    whole = (folder / CONFIG_FILE).read_text().rstrip()
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        (folder / CONFIG_FILE).write_text(whole[: int(share * (len(whole) - 1))])
        with pytest.raises(ModelError, match=f"{CONFIG_FILE}: expected JSON"):
            load_model(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '"text"', "null", '{"format": "spae-model/1"}', "\udcff"])
def test_a_config_that_describes_no_model_is_refused(folder, content):
    (folder / CONFIG_FILE).write_text(content, errors="surrogateescape")
    with pytest.raises(ModelError, match=CONFIG_FILE):
        load_model(folder)


def test_a_config_without_one_of_its_parts_is_refused(folder):
    whole = json.loads((folder / CONFIG_FILE).read_text())
    for part in ("format", "config", "model_sha256", "codebook_sha256", "files"):
        (folder / CONFIG_FILE).write_text(json.dumps({key: whole[key] for key in whole if key != part}))
        with pytest.raises(ModelError, match=r"config|format"):
            load_model(folder)


def test_an_unknown_format_is_refused_with_both(folder):
    edit_config(folder, lambda description: description.update(format="spae-model/9"))
    with pytest.raises(ModelError, match=f"{CONFIG_FILE}: expected format spae-model/1, got spae-model/9"):
        load_model(folder)


def test_a_setting_changed_by_hand_is_refused(folder):
    edit_config(folder, lambda description: description["config"]["quantizer"].update(kind="residual"))
    with pytest.raises(ModelError, match="model_sha256"):
        load_model(folder)


def test_weights_that_are_absent_unknown_or_of_another_shape_are_refused(tiny_tokenizer, tmp_path):
    weights, config = tiny_tokenizer.state_dict(), tiny_tokenizer.config
    short = {name: tensor for name, tensor in weights.items() if name != "encoder.stem.weight"}
    save_model(tmp_path / "absent", config, short, tiny_tokenizer.codebook)
    with pytest.raises(ModelError, match=r"got 1 absent \(first: \['encoder.stem.weight'\]\)"):
        SpaeTokenizer.from_pretrained(tmp_path / "absent")
    save_model(tmp_path / "unknown", config, weights | {"extra": torch.zeros(1)}, tiny_tokenizer.codebook)
    with pytest.raises(ModelError, match=r"1 unknown \(first: \['extra'\]\)"):
        SpaeTokenizer.from_pretrained(tmp_path / "unknown")
    wrong = weights | {"decoder.to_pixels.bias": torch.zeros(5)}
    save_model(tmp_path / "shape", config, wrong, tiny_tokenizer.codebook)
    with pytest.raises(ModelError, match=r"decoder\.to_pixels\.bias"):
        SpaeTokenizer.from_pretrained(tmp_path / "shape")


def test_a_file_that_is_no_safetensors_file_is_refused_even_if_its_hash_fits(folder):
    content = b"no tensors"
    (folder / WEIGHTS_FILE).write_bytes(content)
    of_file = hashlib.sha256(content).hexdigest()
    edit_config(folder, lambda description: description["files"].update({WEIGHTS_FILE: of_file}))
    with pytest.raises(ModelError, match=WEIGHTS_FILE):
        load_model(folder)


def test_the_config_file_lists_the_settings_in_plain_words(folder, tiny_tokenizer):
    description = json.loads((folder / CONFIG_FILE).read_text())
    assert description["config"] == json.loads(json.dumps(config_to_json(tiny_tokenizer.config)))
    assert description["config"]["pyramid"]["layer_grids"] == [[1, 1], [2, 2], [4, 4], [4, 4]]
    assert description["model_sha256"] == tiny_tokenizer.model_sha256


def test_a_model_saved_before_a_setting_existed_loads_and_keeps_its_hash(folder):
    description = json.loads((folder / CONFIG_FILE).read_text())
    del description["config"]["quantizer"]["axis_decay"]
    settings = json.dumps(description["config"], sort_keys=True).encode()
    weights = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).digest()
    description["model_sha256"] = hashlib.sha256(settings + b"\0" + weights).hexdigest()
    (folder / CONFIG_FILE).write_text(json.dumps(description))
    files = load_model(folder)
    assert files.config.quantizer.axis_decay == 0
    assert files.model_sha256 == description["model_sha256"] != hash_model(files.config, b"")
    assert SpaeTokenizer.from_pretrained(folder).model_sha256 == description["model_sha256"]


def test_files_without_a_hash_are_refused(folder):
    edit_config(folder, lambda description: description["files"].pop(WEIGHTS_FILE))
    with pytest.raises(ModelError, match=f"{WEIGHTS_FILE}: expected sha256 None"):
        load_model(folder)

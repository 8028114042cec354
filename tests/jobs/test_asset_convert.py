"""Checkpoints become safetensors: only numpy arrays are unpickled, kernels are turned to torch's layout."""

import base64
import io
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from jobs.asset_convert import (
    convert_efficientnet_lite0,
    convert_i3d,
    convert_lpips,
    convert_nsfwjs,
    export_clip_text_vectors,
    load_numpy_pickle,
)
from jobs.asset_steps import is_animated_webp, join_parts, keep_largest_size, sort_animated
from pipelines.errors import BadDataError


class Command:
    """A pickle that runs a program when it is read, as anybody can write one."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_a_program_is_refused_before_it_does(tmp_path: Path, protocol: int) -> None:
    bait = tmp_path / "bait"
    content = pickle.dumps({"weights": Command(bait)}, protocol)
    with pytest.raises(BadDataError, match=r"got a reference to (posix|nt)\.system"):
        load_numpy_pickle(io.BytesIO(content))
    assert not bait.exists()
    pickle.loads(content)
    assert bait.exists(), "the bait itself must be able to run, or the test shows nothing"


@pytest.mark.parametrize("value", [np.load, OrderedDict, np.float32(1), eval])
def test_other_names_than_those_of_an_array_are_refused(value: object) -> None:
    with pytest.raises(BadDataError, match="expected only numpy arrays"):
        load_numpy_pickle(io.BytesIO(pickle.dumps({"a": value}, 4)))


def test_arrays_come_back_as_they_were_written_by_old_and_new_numpy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    # Protocol 3 spells names out as lines, so that one can be replaced by a shorter one.
    new = pickle.dumps({"a": {"b": array}}, 3)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != new
    for content in (new, old):
        np.testing.assert_array_equal(load_numpy_pickle(io.BytesIO(content))["a"]["b"], array)


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2])])
def test_what_is_no_pickled_dict_is_named(content: bytes) -> None:
    with pytest.raises(BadDataError, match="pickled checkpoint: expected"):
        load_numpy_pickle(io.BytesIO(content))


def conv(rng: np.random.Generator, *shape: int) -> dict[str, np.ndarray]:
    return {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[-1]).astype(np.float32)}


def test_lpips_kernels_do_in_torch_what_they_did_in_flax(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trees = {}
    for stem, trunk, num_convs in (("vgg16", "VGG16_0", 13), ("alexnet", "AlexNet_0", 5)):
        tree = {trunk: {f"Conv_{i}": conv(rng, 3, 3, 2, 4) for i in range(num_convs)}}
        tree |= {f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.random((1, 1, 4, 1))}} for i in range(5)}
        (tmp_path / f"{stem}.ckpt").write_bytes(pickle.dumps(tree, 4))
        trees[stem] = tree
    convert_lpips(tmp_path, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lpips_alex.safetensors",
        "lpips_vgg.safetensors",
    ]
    vgg = load_file(tmp_path / "lpips_vgg.safetensors")
    alex = load_file(tmp_path / "lpips_alex.safetensors")
    assert {key for key in alex if key.endswith("weight")} == {
        *(f"features.{n}.weight" for n in (0, 3, 6, 8, 10)),
        *(f"lin{n}.weight" for n in range(5)),
    }
    assert vgg["lin4.weight"].shape == (1, 4, 1, 1)
    # The sum over height, width and input channels, written out: what a flax kernel (H, W, I, O) means.
    patch = rng.normal(size=(3, 3, 2))
    flax = trees["vgg16"]["VGG16_0"]["Conv_12"]
    by_hand = [
        sum(patch[h, w, i] * flax["kernel"][h, w, i, o] for h in range(3) for w in range(3) for i in range(2))
        + flax["bias"][o]
        for o in range(4)
    ]
    ours = torch.nn.functional.conv2d(
        torch.tensor(patch.transpose(2, 0, 1)[None], dtype=torch.float32),
        torch.tensor(vgg["features.28.weight"]),
        torch.tensor(vgg["features.28.bias"]),
    )
    np.testing.assert_allclose(ours.flatten(), by_hand, rtol=1e-5)


def test_an_lpips_checkpoint_with_a_missing_layer_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tree = {"VGG16_0": {f"Conv_{i}": conv(rng, 1, 1, 1, 1) for i in range(12)}}
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(tree, 4))
    with pytest.raises(BadDataError, match=r"vgg16\.ckpt: expected 13 convolutions, got 12"):
        convert_lpips(tmp_path, tmp_path)


def test_i3d_units_get_torch_names_and_layout(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(7, 5, 3, 2, 4)).astype(np.float32)
    tree = {
        "params": {
            "Mixed_3b": {"Branch_0/Conv3d_0a_1x1": {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": np.ones(4)}}},
            "Logits": {"Conv3d_0c_1x1": {"Conv_0": {"bias": np.zeros(3)}}},
        },
        "batch_stats": {
            "Mixed_3b": {"Branch_0/Conv3d_0a_1x1": {"BatchNorm_0": {"mean": np.full((1, 1, 1, 1, 4), 2.0)}}}
        },
    }
    (tmp_path / "i3d-kinetics-400.ckpt").write_bytes(pickle.dumps(tree, 4))
    convert_i3d(tmp_path, tmp_path)
    tensors = load_file(tmp_path / "i3d_kinetics400.safetensors")
    unit = "Mixed_3b.Branch_0.Conv3d_0a_1x1"
    assert {key: array.shape for key, array in tensors.items()} == {
        f"{unit}.conv.weight": (4, 2, 7, 5, 3),
        f"{unit}.bn.bias": (4,),
        f"{unit}.bn.running_mean": (4,),
        "Logits.Conv3d_0c_1x1.conv.bias": (3,),
    }
    assert tensors[f"{unit}.conv.weight"][3, 1, 6, 4, 2] == kernel[6, 4, 2, 1, 3]


def test_efficientnet_keeps_its_keys_and_refuses_a_checkpoint_with_code(tmp_path: Path) -> None:
    state = OrderedDict({"_conv_stem.weight": torch.arange(4.0).reshape(2, 2).T, "_bn0.num": torch.tensor(3)})
    torch.save(state, tmp_path / "efficientnet-lite0.pth")
    convert_efficientnet_lite0(tmp_path, tmp_path)
    tensors = load_file(tmp_path / "efficientnet_lite0.safetensors")
    np.testing.assert_array_equal(tensors["_conv_stem.weight"], [[0, 2], [1, 3]])
    assert tensors["_bn0.num"] == 3
    torch.save({"a": Command(tmp_path / "bait")}, tmp_path / "efficientnet-lite0.pth")
    with pytest.raises(pickle.UnpicklingError):
        convert_efficientnet_lite0(tmp_path, tmp_path)
    assert not (tmp_path / "bait").exists()


def test_an_eight_bit_bundle_gives_the_numbers_that_its_scales_say(tmp_path: Path) -> None:
    # Two shards cut a tensor in the middle, as the real ones do.
    codes = bytes(range(6)) + np.array([7.5], "<f4").tobytes()
    manifest = (
        '{name:"dense_1/kernel",shape:[3,2],dtype:"float32",quantization:{min:-1,scale:.5,dtype:"uint8"}},'
        '{name:"dense_1/bias",shape:[1],dtype:"float32"}'
    )
    (tmp_path / "model.min.js").write_text(f"n.exports={{weights:[{manifest}]}}")
    for number, part in ((1, codes[:4]), (2, codes[4:])):
        text = f'define("g",function(){{n.exports="{base64.b64encode(part).decode()}"}})'
        (tmp_path / f"group1-shard{number}of2.min.js").write_text(text)
    convert_nsfwjs(tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["inception_v3_nsfwjs.safetensors"]
    tensors = load_file(tmp_path / "inception_v3_nsfwjs.safetensors")
    np.testing.assert_array_equal(tensors["dense_1/kernel"], [[-1, 0, 1], [-0.5, 0.5, 1.5]])
    np.testing.assert_array_equal(tensors["dense_1/bias"], [7.5])


def test_a_bundle_longer_than_its_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.min.js").write_text('{name:"a",shape:[1],dtype:"float32"}')
    (tmp_path / "group1-shard1of1.min.js").write_text(f'"{base64.b64encode(bytes(8)).decode()}"')
    with pytest.raises(BadDataError, match="expected weights of 8 bytes, got a manifest of 4"):
        convert_nsfwjs(tmp_path, tmp_path)


def write_class_names(folder: Path, num_objects: int) -> None:
    lvis = [{"id": 2, "name": "dish_rack"}, {"id": 1, "name": "aerosol_can"}]
    (folder / "lvis_v1.json").write_text(json.dumps(lvis))
    (folder / "o365.csv").write_text("1,Moniter/TV,Monitor/TV\n")
    (folder / "oid.txt").write_text("""[{'id': 1, 'name': 'Rose', 'x': 1}, {'id': 2, 'name': "Cat's eye"}]""")
    for key, count in (("lvis_v1", 2), ("o365", num_objects), ("oid", 2)):
        np.save(folder / f"{key}.npy", np.full((count, 512), len(key), np.float16))


def test_class_vectors_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_class_names(tmp_path, num_objects=1)
    export_clip_text_vectors(tmp_path, tmp_path)
    assert json.loads((tmp_path / "names.json").read_text()) == [
        "aerosol can",
        "dish rack",
        "Monitor/TV",
        "Rose",
        "Cat's eye",
    ]
    vectors = load_file(tmp_path / "clip_text_vectors.safetensors")["vectors"]
    assert vectors.dtype == np.float32
    assert vectors[:, 0].tolist() == [7, 7, 4, 3, 3]


def test_names_and_vectors_that_do_not_pair_are_refused(tmp_path: Path) -> None:
    write_class_names(tmp_path, num_objects=3)
    with pytest.raises(BadDataError, match="class names of o365: expected 3, got 1"):
        export_clip_text_vectors(tmp_path, tmp_path)


def test_moving_pictures_are_told_from_stills_by_their_header(tmp_path: Path) -> None:
    (tmp_path / "unsorted").mkdir()
    frames = [Image.new("RGBA", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "unsorted" / "moves.webp", save_all=True, append_images=frames[1:])
    frames[0].convert("RGB").save(tmp_path / "unsorted" / "plain.webp")
    exif = Image.Exif()
    exif[0x0131] = "the software that made it"
    # An extended file that stands still: the same header chunk with the animation bit off.
    frames[0].save(tmp_path / "unsorted" / "extended.webp", exif=exif)
    (tmp_path / "unsorted" / "short.webp").write_bytes(b"RIFF")
    assert (tmp_path / "unsorted" / "extended.webp").read_bytes()[12:16] == b"VP8X"
    assert is_animated_webp(tmp_path / "unsorted" / "moves.webp")
    sort_animated(tmp_path, tmp_path)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.webp"))
    assert found == ["clips/moves.webp", "images/extended.webp", "images/plain.webp", "images/short.webp"]
    assert not (tmp_path / "unsorted").exists()


def test_of_many_sizes_of_a_picture_the_one_with_most_pixels_stays(tmp_path: Path) -> None:
    # As text "900x900" is the last of these, and "1080x1920" has the largest height.
    for name in ("a/900x900.png", "a/1920x1200.png", "a/1080x1920.png", "b/10x10.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    keep_largest_size(tmp_path, tmp_path)
    left = sorted(path.name for path in tmp_path.rglob("*x*.*"))
    assert left == ["10x10.jpg", "1920x1200.png"]


def test_parts_are_joined_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for number in (10, 2, 0, 1):
        (tmp_path / "parts" / f"model.gguf.part{number:02}").write_bytes(bytes([number]))
    join_parts(tmp_path, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.gguf": bytes([0, 1, 2, 10])}

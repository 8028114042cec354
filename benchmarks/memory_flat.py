"""Does tokenizing need more memory the longer it runs? 70,000 Fashion-MNIST pictures, a tiny model with random weights.

The pictures are packed as PNG into one tar, `spae tokenize` runs over it as a process of its own, and its resident
memory is read twice a second beside the rows it says are done (its metrics file). Flat means: from 10,000 pictures on
the memory stays within 10 % of what it was there. There is no peer: the question is whether something grows.

Run: python benchmarks/memory_flat.py [--num-pictures N] [--json PATH]; needs `spae assets fetch fashion-mnist`.
"""

import argparse
import gzip
import io
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image
from result_file import installed, write_result

from jobs.asset_fetch import asset_path
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.tokenizer import SpaeTokenizer

SETTLED_AFTER, TOLERANCE = 10_000, 0.10
ROOT = Path(__file__).parents[1]


def write_tar(target: Path, num_pictures: int) -> None:
    """Pack the first pictures, those of the training set before those of the test set."""
    folder = asset_path("fashion-mnist")
    number = 0
    with tarfile.open(target, "w") as tar:
        for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
            pixels = np.frombuffer(gzip.decompress((folder / name).read_bytes())[16:], np.uint8).reshape(-1, 28, 28)
            for picture in pixels[: num_pictures - number]:
                sink = io.BytesIO()
                Image.fromarray(picture).save(sink, format="PNG", compress_level=1)
                entry = tarfile.TarInfo(f"{number:06d}.png")
                entry.size = sink.tell()
                sink.seek(0)
                tar.addfile(entry, sink)
                number += 1


def write_model(folder: Path) -> None:
    """Save the preset `tiny` with random weights and 64 made-up words."""
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(64, 8), dim=1)
    words = tuple(f"word{index}" for index in range(64))
    codebook = LexicalCodebook(embeddings=vectors, token_ids=tuple(range(64)), words=words, source="made up")
    SpaeTokenizer.from_preset("tiny", codebook).eval().save_pretrained(folder)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def rows_done(metrics: Path) -> int:
    """What the run's metrics file says; 0 before the first one."""
    try:
        found = re.search(r"^spae_rows_done ([\d.e+]+)$", metrics.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return 0
    return int(float(found[1])) if found else 0


def main() -> None:
    """Run and report; exit code 1 if the memory is not flat or the dataset is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-pictures", type=int, default=70_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    spae = [sys.executable, "-m", "jobs.cli"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tar(folder / "pictures.tar", arguments.num_pictures)
        write_model(folder / "tiny")
        words = ["tokenize", folder / "pictures.tar", "--model", folder / "tiny", "--out", folder / "run"]
        words += ["--metrics-file", folder / "spae.prom", "--num-threads", "2"]
        started = time.perf_counter()
        process = subprocess.Popen([*spae, *map(str, words)], cwd=ROOT)
        samples = []
        while process.poll() is None:
            memory_mb = resident_mb(process.pid)
            done = rows_done(folder / "spae.prom")
            samples.append(
                {"seconds": round(time.perf_counter() - started, 1), "rows": done, "resident_mb": round(memory_mb, 1)}
            )
            time.sleep(0.5)
        seconds = time.perf_counter() - started
        verified = subprocess.run([*spae, "verify", str(folder / "run")], cwd=ROOT, check=False).returncode
    settled = [sample["resident_mb"] for sample in samples if sample["rows"] >= SETTLED_AFTER and sample["resident_mb"]]
    growth = max(settled) / settled[0] - 1 if settled else float("nan")
    is_right = process.returncode == 0 and verified == 0 and growth <= TOLERANCE
    print(
        f"{arguments.num_pictures} pictures in {seconds:.0f} s; memory {settled[0] if settled else 0:.0f} MB at "
        f"{SETTLED_AFTER}, at most {max(settled, default=0):.0f} MB after that ({growth:+.1%}); "
        f"tokenize exit {process.returncode}, verify exit {verified}"
    )
    if arguments.json:
        write_result(
            arguments.json,
            "memory_flat",
            versions={"python": platform.python_version(), **installed("torch", "pyarrow", "pillow")},
            ours={
                "seconds": round(seconds, 1),
                "num_pictures": arguments.num_pictures,
                "growth_after_10000": round(growth, 4),
                "samples": samples,
            },
            equal=is_right,
        )
    raise SystemExit(0 if is_right else 1)


if __name__ == "__main__":
    main()

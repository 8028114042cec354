"""Do photographs come back as well as windows of the pictures a model was trained on?

Where unseen windows of the train pictures come back well and photographs do not, the training lacks pictures like
photographs; where trained-on windows come back better than unseen ones of the same pictures, it has learned them by
heart.

Needs the assets foolbox-photos and lpips, and crop sets: the one trained on, and one that `spae crops` cuts from the
same pictures with another --seed.

Run: python benchmarks/domain_gap.py CROP_SET… [--model NAME|DIR] [--num-crops N] [--json PATH]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from held_out_photos import load, test_photos
from result_file import installed, write_result
from torch import Tensor

from jobs.asset_fetch import asset_path
from jobs.training_inputs import to_images
from pipelines.training.crop_set import open_crops, unpack_crops
from spae_core.metrics import psnr_db, ssim
from spae_core.perceptual import Lpips
from spae_core.tokenizer import SpaeTokenizer

_BATCH = 16


def some_crops(folder: Path, num_crops: int) -> Tensor:
    """So many crops of a set, drawn without repetition; float32 (N, 3, S, S) in [0, 1]."""
    with tempfile.TemporaryDirectory() as scratch:
        crops = unpack_crops(open_crops(folder), Path(scratch))
        rows = np.random.default_rng(0).choice(len(crops), min(num_crops, len(crops)), replace=False)
        return to_images(crops[np.sort(rows)])


@torch.inference_mode()
def quality(model: SpaeTokenizer, lpips: Lpips, images: Tensor) -> dict[str, Any]:
    """Mean PSNR, SSIM and LPIPS of what comes back out of all layers, and the standard error of LPIPS."""
    measured = []
    for batch in images.split(_BATCH):
        decoded = model.detokenize(model.tokenize(batch))
        measured.append(torch.stack([metric(decoded, batch).flatten() for metric in (psnr_db, ssim, lpips)]))
    psnr, similarity, distance = torch.cat(measured, dim=1)
    return {
        "num_pictures": len(images),
        "psnr_db": psnr.mean().item(),
        "ssim": similarity.mean().item(),
        "lpips_vgg": distance.mean().item(),
        "lpips_standard_error": (distance.std() / len(images) ** 0.5).item(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crop_sets", nargs="+", type=Path, metavar="CROP_SET")
    parser.add_argument("--model", default="spae-smol-128")
    parser.add_argument("--num-crops", type=int, default=240, help="of each set")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = SpaeTokenizer.from_pretrained(arguments.model)
    lpips = Lpips.from_file(asset_path("lpips") / "lpips_vgg.safetensors", net="vgg")
    started = time.perf_counter()
    rows = {"photographs of no training": quality(model, lpips, load(test_photos(), model.config.image_size_px))}
    for folder in arguments.crop_sets:
        rows[str(folder)] = quality(model, lpips, some_crops(folder, arguments.num_crops))
    for name, row in rows.items():
        print(
            f"{name:32} {row['num_pictures']:>5} pictures  {row['psnr_db']:.2f} dB  SSIM {row['ssim']:.3f}  "
            f"LPIPS {row['lpips_vgg']:.3f} ± {row['lpips_standard_error']:.3f}"
        )
    if arguments.json:
        write_result(
            arguments.json,
            "domain_gap",
            versions=installed("torch", "pillow", "scikit-image", "foolbox"),
            ours={"seconds": time.perf_counter() - started, "model_sha256": model.model_sha256, "sets": rows},
        )


if __name__ == "__main__":
    main()

"""Why the lookup space of the shipped model has falling axes: a codec without any network.

The principal components of 8×8 patches of the test photographs, each half fitted on the other,
are quantized with the shipped codebook by streaming average quantization, its axes scaled by i^−decay,
and read back by linear regression. Decay 0 is the lookup space as it is, the peer.

Run: python benchmarks/lookup_axes.py [--model NAME|DIR] [--json PATH]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from result_file import installed, write_result
from torch import Tensor

from benchmarks.reconstruction_quality import load, test_photos
from spae_core.nearest_entry import nearest_entry
from spae_core.quantizer import axis_scales
from spae_core.tokenizer import SpaeTokenizer

PATCH_PX = 8
DECAYS = (0.0, 0.5, 0.8, 1.0, 1.2)


def patches(images: Tensor) -> Tensor:
    """(B, 3, S, S) to (N, 3·8·8), one row for each cell of the latent grid."""
    cut = images.unfold(2, PATCH_PX, PATCH_PX).unfold(3, PATCH_PX, PATCH_PX)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)


def quantized(latents: Tensor, table: Tensor, num_words: int) -> Tensor:
    """Mean of the entries that SAQ chooses for each latent (N, C)."""
    total = torch.zeros_like(latents)
    for count in range(num_words):
        total = total + table[nearest_entry((count + 1) * latents - total, table)]
    return total / num_words


def psnr_of(decay: float, words: Tensor, data: Tensor, num_words: int) -> float:
    """PSNR in dB over the patches `data` (N, 192), halves of which serve as each other's training set."""
    table = (words - words.mean(dim=0)) * axis_scales(words.shape[1], decay)
    errors = []
    for fitted, tested in ((data[::2], data[1::2]), (data[1::2], data[::2])):
        mean = fitted.mean(dim=0)
        variances, axes = torch.linalg.eigh(torch.cov(fitted.t()))
        axes = axes.flip(1)[:, : words.shape[1]]
        # Matched start: the latents get the codebook's standard deviation on every axis.
        gains = table.std(dim=0) / variances.flip(0)[: words.shape[1]].sqrt()
        codes = [quantized((rows - mean) @ axes * gains, table, num_words) for rows in (fitted, tested)]
        decoder = torch.linalg.lstsq(codes[0], fitted - mean).solution
        errors.append((codes[1] @ decoder + mean - tested).square().mean())
    return -10 * torch.stack(errors).mean().log10().item()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spae-smol-128")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = SpaeTokenizer.from_pretrained(arguments.model)
    words, data = model.codebook.embeddings, patches(load(test_photos(), model.config.image_size_px))
    rows = []
    for decay in DECAYS:
        started = time.perf_counter()
        values = {str(count): psnr_of(decay, words, data, count) for count in (1, 2, 3)}
        rows.append({"name": f"decay {decay}", "seconds": time.perf_counter() - started, "psnr_db": values})
        print(f"decay {decay:<4}" + "".join(f"  {count} words {value:.2f} dB" for count, value in values.items()))
    if arguments.json:
        own = f"decay {model.config.quantizer.axis_decay}"
        write_result(
            arguments.json,
            "lookup_axes",
            versions=installed("torch"),
            ours=next(row for row in rows if row["name"] == own),
            peers=[row for row in rows if row["name"] != own],
        )


if __name__ == "__main__":
    main()

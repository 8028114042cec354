"""How well do pictures come back out of the words, and do the words on top say what they show?

Pictures: the 20 ImageNet photographs of foolbox and the colour photographs of scikit-image, which no shipped model was
trained on, prepared as `spae tokenize` does. Peers: WebP and JPEG at no more bytes than the tokens take, and the
picture reduced to 16×16 as the floor.

Needs the assets foolbox-photos, lpips, efficientnet-lite0, minilm: `spae assets fetch foolbox-photos lpips
efficientnet-lite0 minilm`.

`--refine-steps` also searches for better words picture by picture (`spae_core.refinement`), against LPIPS of VGG; that
of AlexNet, which neither training nor search looks at, is a second opinion.

Run: python benchmarks/reconstruction_quality.py [--model NAME|DIR] [--refine-steps N] [--json PATH] [--grid PNG]
"""

import argparse
import io
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from held_out_photos import classes_of, load, semantic_scores, test_photos
from PIL import Image
from result_file import installed, write_result
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import save_image

from jobs.asset_fetch import asset_path
from spae_core.metrics import LayerCodeStatistics, psnr_db, ssim
from spae_core.perceptual import Lpips
from spae_core.refinement import RefinementConfig, refine
from spae_core.tokenizer import SpaeTokenizer


def compressed(images: Tensor, kind: str, budget_bytes: int) -> Tensor:
    """Each picture at the best quality that fits the budget; where none fits, at the worst, reduced until it fits."""
    out = []
    for image in images:
        array = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        side = array.shape[0]
        for reduced in (side, side * 3 // 4, side // 2, side // 4):
            small = Image.fromarray(array).resize((reduced, reduced), Image.Resampling.BICUBIC)
            best = None
            for quality in range(0, 101):
                buffer = io.BytesIO()
                small.save(buffer, kind, quality=quality, **({"method": 6} if kind == "WEBP" else {"optimize": True}))
                if buffer.tell() <= budget_bytes:
                    best = buffer
            if best is not None:
                break
        picture = Image.open(best).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        out.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255)
    return torch.stack(out)


def floor(images: Tensor, side: int = 16) -> Tensor:
    """The picture reduced to 16×16 and enlarged again."""
    small = F.interpolate(images, size=(side, side), mode="area")
    return F.interpolate(small, size=images.shape[-2:], mode="bicubic", antialias=False).clamp(0, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spae-smol-128")
    parser.add_argument("--refine-steps", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--grid", type=Path, help="write originals above reconstructions")
    arguments = parser.parse_args()
    model = SpaeTokenizer.from_pretrained(arguments.model)
    paths = test_photos()
    images = load(paths, model.config.image_size_px)
    lpips = Lpips.from_file(asset_path("lpips") / "lpips_vgg.safetensors", net="vgg")
    second_opinion = Lpips.from_file(asset_path("lpips") / "lpips_alex.safetensors", net="alex")
    started = time.perf_counter()
    pyramid = model.tokenize(images)
    seconds = time.perf_counter() - started
    pyramid_config = model.config.pyramid
    bits = math.log2(model.codebook.codebook_size)
    statistics = LayerCodeStatistics(pyramid_config.num_layers, model.codebook.codebook_size)
    statistics.update(pyramid.code_indices)

    def quality(decoded: Tensor) -> dict[str, float]:
        with torch.inference_mode():
            return {
                "psnr_db": psnr_db(decoded, images).mean().item(),
                "ssim": ssim(decoded, images).mean().item(),
                "lpips_vgg": lpips(decoded, images).mean().item(),
                "lpips_alex": second_opinion(decoded, images).mean().item(),
            }

    rows, grid = {}, [images]
    for depth in range(1, pyramid_config.num_layers + 1):
        decoded = model.detokenize(pyramid, num_layers=depth)
        tokens = pyramid_config.cumulative_tokens[depth - 1]
        rows[str(depth)] = {"tokens": tokens, "bytes": math.ceil(tokens * bits / 8), **quality(decoded)}
        if depth >= pyramid_config.first_decodable_layer:
            grid.append(decoded)
    refined, search_seconds = {}, 0.0
    if arguments.refine_steps:
        started_search = time.perf_counter()
        searched, _ = refine(model, images, lpips, RefinementConfig(num_steps=arguments.refine_steps))
        search_seconds = time.perf_counter() - started_search
        for depth in range(pyramid_config.first_decodable_layer, pyramid_config.num_layers + 1):
            decoded = model.detokenize(searched, num_layers=depth)
            refined[str(depth)] = {**rows[str(depth)], **quality(decoded)}
            grid.append(decoded)
    budget = rows[str(pyramid_config.num_layers)]["bytes"]
    peers = [
        {"name": f"WebP, at most {budget} bytes", **quality(compressed(images, "WEBP", budget))},
        {"name": f"JPEG, at most {budget} bytes", **quality(compressed(images, "JPEG", budget))},
        {"name": "16×16 pixels", **quality(floor(images))},
    ]
    classes = classes_of(paths)
    words = [indices.flatten(1)[: len(classes)].tolist() for indices in pyramid.code_indices]
    semantic = semantic_scores(model, images[: len(classes)], words, classes)
    print(f"{'':32}{'tokens':>8}{'bytes':>8}{'PSNR dB':>10}{'SSIM':>8}{'LPIPS':>8}{'AlexNet':>9}")
    listed = [(f"{depth} layers", row) for depth, row in rows.items()]
    listed += [(f"{depth} layers, searched for", row) for depth, row in refined.items()]
    for name, row in listed + [(peer["name"], peer) for peer in peers]:
        print(
            f"{name:32}{row.get('tokens', ''):>8}{row.get('bytes', ''):>8}"
            f"{row['psnr_db']:>10.2f}{row['ssim']:>8.3f}{row['lpips_vgg']:>8.3f}{row['lpips_alex']:>9.3f}"
        )
    print("relative semantic score by layer", [round(score, 3) for score in semantic["relative_score_by_layer"]])
    print("  of a random word", round(semantic["relative_score_of_a_random_word"], 3))
    print("true class among the first 1, 5, 21 words", semantic["true_class_among_first_words"])
    print("perplexity by layer on these pictures", [round(value) for value in statistics.perplexity()])
    for path, line in zip(paths, semantic["first_words"], strict=False):
        print(f"  {path.stem}: {line}")
    if arguments.grid:
        save_image(torch.cat(grid), arguments.grid, nrow=len(images), padding=2, pad_value=1.0)
    if arguments.json:
        write_result(
            arguments.json,
            "reconstruction_quality",
            versions=installed("torch", "pillow", "scikit-image", "foolbox"),
            ours={
                "seconds": seconds,
                "model_sha256": model.model_sha256,
                "num_pictures": len(images),
                "layers": rows,
                "refined": refined,
                "refinement_seconds": search_seconds,
                "perplexity": statistics.perplexity(),
                "semantic": semantic,
            },
            peers=peers,
        )


if __name__ == "__main__":
    main()

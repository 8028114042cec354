"""Which parts of the method help? Trains small variants alike and measures them on photographs none of them saw.

Same crops, same steps, same seeds; one thing changes at a time (`ablation_variants.py`). A variant that is finished is
not trained again, and one that was interrupted goes on from its checkpoint. PSNR and LPIPS are means over the 25
test-only photographs, perplexities over 512 train crops, semantic scores relative (1: ConSE's best word of the picture,
0: its worst) over the 20 ImageNet photographs.

Run: python benchmarks/ablations.py --data CROPS --codebook FILE --out DIR [--steps N] [--seeds N] [--only NAME …]
     [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from ablation_variants import VARIANTS, Variant, narrowed, reference_config, reference_recipe
from held_out_photos import classes_of, load, semantic_scores, test_photos
from result_file import installed, write_result
from safetensors.torch import load_file, save_file

from jobs.asset_fetch import asset_path
from jobs.training_inputs import CLASSIFIER_PATTERN, crops_of, fit_semantic_head, rank_crops, to_images
from jobs.training_inputs import semantic_features as encode_crops
from jobs.training_watch import evenly_spaced
from spae_core.conse_encoder import ConseSemanticEncoder
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.metrics import LayerCodeStatistics, psnr_db
from spae_core.model_files import config_to_json
from spae_core.perceptual import Lpips
from spae_core.tokenizer import SpaeTokenizer
from spae_core.trainer import Trainer
from spae_core.training_batches import TrainingData
from spae_core.training_config import TrainingConfig

_CROPS_MEASURED = 512


def build(
    variant: Variant, codebook: LexicalCodebook, num_steps: int, seed: int
) -> tuple[SpaeTokenizer, TrainingConfig]:
    """Model with random weights, and recipe, of one variant."""
    config = variant.config(reference_config())
    if variant.embedding_dim is not None:
        config, codebook = (
            replace(config, embedding_dim=variant.embedding_dim),
            narrowed(codebook, variant.embedding_dim),
        )
    torch.manual_seed(seed)
    model = SpaeTokenizer(config, codebook)
    if variant.entries_are_trained:
        model.quantizer.train_entries()
    return model, variant.recipe(reference_recipe(num_steps, seed))


def with_words(model: SpaeTokenizer, recipe: TrainingConfig, data: TrainingData, folder: Path) -> TrainingData:
    """Crops, with what the variant needs beside them; kept in `folder` for the next variant."""
    if model.ranked_words is not None:
        fit_semantic_head(model, "efficientnet-lite0", "minilm", folder)
        data = replace(data, given=model.place_words(rank_crops(model, data, folder)))
    if not recipe.semantic.weight:
        return data
    assert data.crops_sha256 is not None
    kept = folder / f"features-{data.crops_sha256[:12]}-{model.codebook_sha256[:12]}.safetensors"
    if not kept.is_file():
        classifier = next(asset_path("efficientnet-lite0").glob(CLASSIFIER_PATTERN))
        encoder = ConseSemanticEncoder.from_files(classifier, asset_path("minilm"))
        images, words = encode_crops(encoder, model.codebook.words, data.crops)
        save_file({"images": images.contiguous(), "words": words.contiguous()}, kept)
    features = load_file(kept)
    return replace(data, image_features=features["images"], word_features=features["words"])


def measure(model: SpaeTokenizer, crops: np.ndarray, lpips: Lpips) -> dict[str, Any]:
    """Quality on the test-only photographs, words in use on train crops, meaning by layer."""
    paths = test_photos()
    images = load(paths, model.config.image_size_px)
    pyramid = model.tokenize(images)
    depths = [pyramid.num_layers] if pyramid.num_layers < 6 else [5, 6]
    result: dict[str, Any] = {"psnr_db": {}, "lpips_vgg": {}}
    with torch.inference_mode():
        for depth in depths:
            decoded = model.detokenize(pyramid, num_layers=depth)
            result["psnr_db"][str(depth)] = psnr_db(decoded, images).mean().item()
            result["lpips_vgg"][str(depth)] = lpips(decoded, images).mean().item()
    usage = LayerCodeStatistics(pyramid.num_layers, model.codebook.codebook_size)
    rows = evenly_spaced(crops, _CROPS_MEASURED)
    for start in range(0, len(rows), 32):
        usage.update(model.tokenize(to_images(crops[rows[start : start + 32]])).code_indices)
    result["perplexity"] = list(usage.perplexity())
    classes = classes_of(paths)
    words: list[list[list[int]]] = [layer.flatten(1)[: len(classes)].tolist() for layer in pyramid.code_indices]
    scores = semantic_scores(model, images[: len(classes)], words, classes)
    del scores["first_words"]
    return result | {"semantic": scores}


def run_variant(name: str, seed: int, arguments: argparse.Namespace, data: TrainingData) -> dict[str, Any]:
    """Train and measure one variant with one seed, or read what an earlier run found."""
    folder = arguments.out / f"{name}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    model, recipe = build(VARIANTS[name], LexicalCodebook.load(arguments.codebook), arguments.steps, seed)
    settings = {
        "config": config_to_json(model.config),
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "codebook_sha256": model.codebook_sha256,
        "crops_sha256": data.crops_sha256,
    }
    kept = folder / "result.json"
    if kept.is_file():
        result: dict[str, Any] = json.loads(kept.read_text())
        if result["settings"] != settings:
            differing = [key for key in settings if settings[key] != result["settings"].get(key)]
            raise SystemExit(
                f"{kept}: expected the settings of this command, got another {', '.join(differing)}. "
                "Use another --out, or remove the folder."
            )
        return result
    named = with_words(model, recipe, data, arguments.out)
    started = time.perf_counter()
    trainer = Trainer(model, recipe, named, folder / "checkpoints", device=arguments.device)
    first = trainer.step
    for report in trainer.steps():
        if report.perplexity:
            rate = (report.step - first) / (time.perf_counter() - started)
            print(f"{name} seed {seed}: step {report.step}, {rate:.1f} a second, {report.losses}", flush=True)
    seconds = time.perf_counter() - started
    lpips = Lpips.from_file(asset_path("lpips") / "lpips_vgg.safetensors", net="vgg")
    result = {"settings": settings, "seconds": seconds, "steps_in_seconds": recipe.num_steps - first}
    result |= measure(trainer.averaged.cpu().baked(), data.crops, lpips)
    kept.write_text(json.dumps(result, indent=2) + "\n")
    return result


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row a variant, mean ± standard deviation over its seeds."""

    def over_seeds(values: list[float], digits: int) -> str:
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.{digits}f}{spread}"

    def by_layer(lists: list[list[float]], digits: int) -> str:
        return " ".join(f"{statistics.mean(values):.{digits}f}" for values in zip(*lists, strict=True))

    lines = [
        "| variant | what | seeds | PSNR, 5 layers, dB | PSNR, all, dB | LPIPS, all | perplexity by layer "
        "| relative semantic score by layer | true class in 5 words |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        last = max(runs[0]["psnr_db"], key=int)
        five = [run["psnr_db"]["5"] for run in runs if "5" in run["psnr_db"]]
        cells = [
            name,
            VARIANTS[name].question,
            str(len(runs)),
            over_seeds(five, 2) if five else "",
            over_seeds([run["psnr_db"][last] for run in runs], 2),
            over_seeds([run["lpips_vgg"][last] for run in runs], 3),
            by_layer([run["perplexity"] for run in runs], 0),
            by_layer([run["semantic"]["relative_score_by_layer"] for run in runs], 2),
            f"{100 * statistics.mean(run['semantic']['true_class_among_first_words']['5'] for run in runs):.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    random_score = next(iter(results.values()))[0]["semantic"]["relative_score_of_a_random_word"]
    return "\n".join([*lines, "", f"A random word's relative score is {random_score:.2f}."])


def main() -> None:
    """Train what is not yet trained, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="pictures, or one crop set of `spae crops`")
    parser.add_argument("--codebook", type=Path, required=True, help="a 32-d codebook.safetensors of `spae codebook`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="some of the variants")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = crops_of(tuple(arguments.data), arguments.out, reference_config().image_size_px)
    names = arguments.only or list(VARIANTS)
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in range(arguments.seeds):  # all variants once before any is repeated
        for name in names:
            results.setdefault(name, []).append(run_variant(name, seed, arguments, data))
            if arguments.json:
                write_json(arguments.json, arguments, results)
    print(table(results))


def write_json(path: Path, arguments: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> None:
    """What is known so far."""
    seconds = sum(run["seconds"] for runs in results.values() for run in runs)
    write_result(
        path,
        "ablations",
        versions=installed("torch", "numpy", "scikit-image", "foolbox"),
        ours={"seconds": seconds, "steps": arguments.steps, "variants": results},
        device=arguments.device,
    )


if __name__ == "__main__":
    main()

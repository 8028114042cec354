"""The photographs that nothing is ever trained on, and how well a model's words name them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from torch import Tensor

from jobs.asset_fetch import asset_path
from pipelines.stages.image_decoding import decode_image
from spae_core.conse_encoder import ConseSemanticEncoder
from spae_core.semantic_guidance import semantic_similarity
from spae_core.tokenizer import SpaeTokenizer

SCIKIT_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
NEAREST_TO_TRUTH = 20


def test_photos() -> list[Path]:
    """The 20 ImageNet photographs (their class is the end of the name), then scikit-image's."""
    imagenet = sorted((asset_path("foolbox-photos") / "images" / "imagenet").glob("*.*"))
    return [*imagenet, *(Path(skimage.__file__).parent / "data" / name for name in SCIKIT_PHOTOS)]


def load(paths: list[Path], side: int) -> Tensor:
    """Pictures as the model sees them, (n, 3, S, S) in [0, 1]."""
    decoded = [decode_image(path.read_bytes(), image_size_px=side).pixels for path in paths]
    pixels = [np.frombuffer(picture, np.uint8).reshape(side, side, 3) for picture in decoded]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


@functools.cache
def _conse() -> ConseSemanticEncoder:
    classifier = asset_path("efficientnet-lite0") / "efficientnet_lite0.safetensors"
    return ConseSemanticEncoder.from_files(classifier, asset_path("minilm"))


@functools.cache
def _word_features(words: tuple[str, ...]) -> Tensor:
    """Minutes for a large codebook, and the same for every variant of a model."""
    return _conse().encode_words(words)


def semantic_scores(
    model: SpaeTokenizer, images: Tensor, words: list[list[list[int]]], classes: list[int]
) -> dict[str, Any]:
    """Relative score of each layer's words, and how often one of the first words is near the true class's text."""
    conse = _conse()
    word_features = _word_features(model.codebook.words)
    similarity = semantic_similarity(conse.encode_images(images), word_features)
    by_layer = [
        float(np.mean([similarity[row, indices].mean().item() for row, indices in enumerate(layer)])) for layer in words
    ]
    truth = conse.image_encoder.class_text_vectors[classes] @ word_features.t()
    near = [set(row.topk(NEAREST_TO_TRUTH).indices.tolist()) for row in truth]
    listed = [[word for layer in words[:3] for word in layer[row]] for row in range(len(classes))]
    hits = {
        str(count): float(
            np.mean([any(word in near[row] for word in listed[row][:count]) for row in range(len(classes))])
        )
        for count in (1, 5, 21)
    }
    return {
        "relative_score_by_layer": by_layer,
        "relative_score_of_a_random_word": similarity.mean().item(),
        "true_class_among_first_words": hits,
        "first_words": [" ".join(model.codebook.words[word] for word in row[:5]) for row in listed],
    }


def classes_of(paths: list[Path]) -> list[int]:
    """Class of each ImageNet photograph, which come first."""
    return [int(path.stem.split("_")[-1]) for path in paths if path.stem.startswith("imagenet")]

"""Gets a training ready: crops of the pictures, the semantic head and the words it chooses for each crop."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from jobs.console import ProgressDisplay, note
from jobs.input_listing import tell_what_was_left_out
from jobs.named_folders import file_of, folder_or_asset

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pipelines.training.crop_cutting import CropConfig
    from pipelines.training.crop_set import CropSet
    from spae_core.semantic_encoder import SemanticEncoder
    from spae_core.tokenizer import SpaeTokenizer
    from spae_core.training_batches import TrainingData

CLASSIFIER_PATTERN = "efficientnet*.safetensors"
_HEAD_STEPS = 3_000
_BATCH = 32


def cut_crops(
    inputs: tuple[str, ...],
    folder: Path,
    config: CropConfig,
    *,
    max_pictures_per_input: int | None = None,
    image_column: str | None = None,
) -> CropSet:
    """List the training pictures and cut their crops into `folder`, unless they are there.

    Args:
        inputs: Folders, globs, files, containers and lists.
        folder: Where the set goes.
        config: How to cut.
        max_pictures_per_input: Bound on the pictures of each input; those whose names have the smallest hashes stay.
        image_column: Column of tables that holds the pictures. Default: found by name and type.

    Raises:
        UsageError: If an input does not exist or holds no pictures.
        BadDataError: If none can be read.
    """
    from pipelines.errors import UsageError
    from pipelines.readers import ListingNotes, ReadOptions, list_inputs, open_inputs
    from pipelines.training.training_crops import UNREADABLE_FILE, make_crops

    notes = ListingNotes()
    entries = []
    for reader in open_inputs(inputs, ReadOptions(image_column=image_column)):
        listed = list(list_inputs([reader], notes))
        if max_pictures_per_input is not None and len(listed) > max_pictures_per_input:
            listed.sort(key=lambda entry: hashlib.sha256(PurePosixPath(entry.uri).name.encode()).digest())
            listed = listed[:max_pictures_per_input]
        entries.extend(listed)
    tell_what_was_left_out(notes)
    if not entries:
        raise UsageError(f"pictures in {' '.join(inputs)}: expected some, got none. Name a folder that holds some.")
    done = 0
    with ProgressDisplay("cutting crops", total=len(entries)) as display:

        def count(_: str) -> None:
            nonlocal done
            done += 1
            display.update(done)

        crops = make_crops(entries, folder, config, on_picture=count)
    note(f"{crops.num_crops} crops of {len(entries)} pictures in {folder}")
    if crops.num_unreadable:
        note(f"{crops.num_unreadable} pictures could not be read: {folder / UNREADABLE_FILE} lists them")
    return crops


def crops_of(
    data: tuple[str, ...], folder: Path, image_size_px: int, *, image_column: str | None = None
) -> TrainingData:
    """The crops to train on, memory-mapped, and nothing beside them yet.

    Args:
        data: Pictures, or the folder of one crop set.
        folder: Of the run: keeps the crop set, if it must be cut, and its pixels.
        image_size_px: S, side of the model's pictures.
        image_column: Column of tables that holds the pictures. Default: found by name and type.

    Raises:
        UsageError: If pictures and crop sets are mixed, or a crop set is of another size.
        BadDataError: If no picture can be read, or the crop set is damaged.
    """
    from pipelines.errors import UsageError
    from pipelines.training.crop_cutting import CropConfig
    from pipelines.training.crop_set import is_crop_set, open_crops, unpack_crops
    from spae_core.training_batches import TrainingData

    if not any(is_crop_set(place) for place in data):
        config = CropConfig(image_size_px=image_size_px)
        crops = cut_crops(data, folder / "crops", config, image_column=image_column)
        return TrainingData(crops=unpack_crops(crops, folder), crops_sha256=crops.sha256)
    if len(data) > 1:
        raise UsageError(
            f"--data: expected one crop set, or pictures, got {' '.join(data)}. Make one set of all with `spae crops`."
        )
    crops = open_crops(Path(data[0]))
    if crops.image_size_px != image_size_px:
        raise UsageError(
            f"--data {data[0]}: expected crops of {image_size_px} px for this preset, got {crops.image_size_px} px. "
            f"Make others with `spae crops --image-size-px {image_size_px}`."
        )
    note(f"{crops.num_crops} crops in {crops.folder}")
    return TrainingData(crops=unpack_crops(crops, folder), crops_sha256=crops.sha256)


def batches_of(crops: NDArray[Any]) -> list[tuple[int, int]]:
    """Row ranges of equal size (but the last) that cover all crops."""
    return [(start, min(start + _BATCH, len(crops))) for start in range(0, len(crops), _BATCH)]


def to_images(crops: NDArray[Any]) -> Tensor:
    """uint8 (n, S, S, 3) to float32 (n, 3, S, S) in [0, 1]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(crops)).permute(0, 3, 1, 2).float().div(255)


def fit_semantic_head(model: SpaeTokenizer, classifier: str, text_encoder: str, folder: Path) -> None:
    """Give a model with ranked words its frozen classifier, and teach its head from words alone.

    The head is kept in `folder` and reused while codebook and settings stay the same.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from spae_core.conse_encoder import ConseSemanticEncoder
    from spae_core.semantic_head import train_semantic_head

    assert model.ranked_words is not None
    settings = f"{model.codebook_sha256} {model.config.ranked_words} {classifier} {text_encoder} {_HEAD_STEPS}"
    kept = folder / f"semantic_head-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.safetensors"
    if kept.is_file():
        model.ranked_words.load_state_dict(load_file(kept))
        return
    note(f"teaching the semantic head from {model.codebook.codebook_size} words, {_HEAD_STEPS} steps")
    conse = ConseSemanticEncoder.from_files(file_of(classifier, CLASSIFIER_PATTERN), folder_or_asset(text_encoder))
    model.ranked_words.image_encoder.load_state_dict(conse.image_encoder.state_dict())
    model.ranked_words.head.requires_grad_(True)
    losses = train_semantic_head(
        model.ranked_words.head,
        class_vectors=conse.image_encoder.class_text_vectors,
        word_vectors=conse.encode_words(model.codebook.words),
        table=model.word_vectors,
        num_steps=_HEAD_STEPS,
    )
    model.ranked_words.head.requires_grad_(False)
    note(f"semantic head: loss {losses[0]:.2f} -> {sum(losses[-50:]) / len(losses[-50:]):.2f} nats")
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        save_file(dict(model.ranked_words.state_dict()), kept)


def rank_crops(model: SpaeTokenizer, data: TrainingData, folder: Path) -> Tensor:
    """Words of the top layers for every crop, int64 (N, R); kept in `folder` for the next start with these crops."""
    import torch
    from safetensors.torch import load_file, save_file

    assert model.ranked_words is not None
    weights = b"".join(tensor.numpy().tobytes() for tensor in model.ranked_words.head.state_dict().values())
    identity = hashlib.sha256(
        weights + f"{model.codebook_sha256} {model.config.ranked_words} {data.crops_sha256}".encode()
    ).hexdigest()
    kept = folder / f"ranked_words-{identity[:12]}.safetensors"
    if kept.is_file():
        return load_file(kept)["ranked"].long()
    ranked: list[Tensor] = []
    with ProgressDisplay("naming crops", total=len(data.crops), unit="crops") as display, torch.inference_mode():
        for start, end in batches_of(data.crops):
            ranked.append(model.rank_words(to_images(data.crops[start:end])))
            display.update(end)
    words = torch.cat(ranked)
    save_file({"ranked": words.int()}, kept)
    return words


def semantic_features(encoder: SemanticEncoder, words: tuple[str, ...], crops: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Features for the semantic guidance loss: (N, T) of the crops and (V, T) of the words."""
    import torch

    note(f"encoding {len(words)} words with {encoder.name}")
    word_features = encoder.encode_words(words)
    features = []
    with ProgressDisplay(f"encoding crops with {encoder.name}", total=len(crops), unit="crops") as display:
        for start, end in batches_of(crops):
            features.append(encoder.encode_images(to_images(crops[start:end])).cpu())
            display.update(end)
    return torch.cat(features), word_features.cpu()

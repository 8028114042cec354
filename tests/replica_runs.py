"""Runs of the tiny model in several processes, for the tests of replicas."""

from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, multiprocessing
from training_runs import smooth_crops

from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import preset
from spae_core.replicas import Replicas
from spae_core.tokenizer import SpaeTokenizer
from spae_core.trainer import Trainer
from spae_core.training_batches import TrainingData
from spae_core.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class ReplicaRun:
    """What each process is told.

    `poison` is the step after which the last rank's pictures become NaN, or None.
    """

    folder: Path
    codebook: Path
    recipe: TrainingConfig
    world_size: int
    poison: int | None = None
    trainable_projection: bool = False


def semantic_data(codebook_size: int) -> TrainingData:
    """Pictures, and features of pictures and words by a made-up encoder."""
    random = np.random.default_rng(5)
    crops = smooth_crops()
    features = [torch.from_numpy(random.normal(size=(count, 6))).float() for count in (len(crops), codebook_size)]
    images, words = (torch.nn.functional.normalize(feature, dim=1) for feature in features)
    return TrainingData(crops=crops, image_features=images, word_features=words)


def train_replica(rank: int, run: ReplicaRun) -> None:
    """One process: trains, and saves what it logged, its first gradients and its last weights."""
    torch.set_num_threads(1)
    replicas = Replicas()
    if run.world_size > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{run.folder}/meeting", rank=rank, world_size=run.world_size
        )
        replicas = Replicas.of_process_group("cpu")
    codebook = LexicalCodebook.load(run.codebook)
    # Other weights in every process: the replicas must begin with those of rank 0.
    torch.manual_seed(rank)
    config = preset("tiny")
    config = replace(config, quantizer=replace(config.quantizer, trainable_projection=run.trainable_projection))
    model = SpaeTokenizer(config, codebook)
    data = semantic_data(codebook.codebook_size)
    trainer = Trainer(model, run.recipe, data, run.folder / "checkpoints", replicas=replicas)
    result: dict[str, Any] = {"losses": [], "norms": [], "perplexity": [], "began": trainer.step}
    try:
        for report in trainer.steps():
            if not result["losses"]:
                result["gradients"] = {
                    name: value.grad for name, value in model.named_parameters() if value.grad is not None
                }
            result["losses"].append(report.losses)
            result["norms"].append(report.gradient_norm)
            result["perplexity"].append(report.perplexity)
            if run.poison == report.step and rank == run.world_size - 1:
                with torch.no_grad():
                    model.decoder.to_pixels.bias.fill_(torch.nan)
    except Exception as error:  # noqa: BLE001 - the test asks what each process died of
        result["error"] = f"{type(error).__name__}: {error}"
    result["weights"] = {name: value.detach() for name, value in model.named_parameters()}
    result["averaged"] = {name: value.detach() for name, value in trainer.averaged.named_parameters()}
    torch.save(result, run.folder / f"rank-{rank}.pt")
    if run.world_size > 1:
        distributed.destroy_process_group()


def train_together(run: ReplicaRun) -> list[dict[str, Any]]:
    """Run all processes of a run; what each of them saved, by rank."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "meeting").unlink(missing_ok=True)
    if run.world_size == 1:
        train_replica(0, run)
    else:
        # Forked from a server that has imported what takes seconds, not from this process, which has threads.
        get_context("forkserver").set_forkserver_preload(["torch._dynamo", "torch.distributed", "torchvision"])
        multiprocessing.start_processes(train_replica, args=(run,), nprocs=run.world_size, start_method="forkserver")
    return [torch.load(run.folder / f"rank-{rank}.pt", weights_only=True) for rank in range(run.world_size)]

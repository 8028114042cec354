"""How much GPU memory does a training step need? Counted on a CPU from small batches, without a GPU.

Every tensor that autograd keeps for a backward pass is counted while it is kept, by the storage it lives in; the most
that is alive at once grows with the batch in a straight line, which two small batches give. Group norms are computed in
float32, as autocast does on a GPU and not on a CPU. On top come the largest block that is computed again in the
backward pass, weights, gradients, Adam's moments and the average.
What is not counted: temporaries of single operations, cuDNN's workspace and fragmentation; a tenth is added for them.

Run: python benchmarks/training_memory.py [--preset NAME] [--batch-size N] [--recipe JSON] [--json PATH]
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from pydantic import TypeAdapter
from result_file import installed, write_result
from torch import Tensor
from torch.nn import functional as F

from spae_core.layers import ResidualBlock
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.perceptual import Lpips
from spae_core.presets import preset
from spae_core.tokenizer import SpaeTokenizer
from spae_core.trainer import Trainer
from spae_core.training_batches import TrainingData
from spae_core.training_config import RECIPES, TrainingConfig

NUM_WORDS, TEXT_WIDTH, SMALL_BATCHES, MARGIN = 32_000, 768, (1, 2), 1.1
GB = 1e9


class LiveBytes:
    """Bytes that autograd keeps now, and the most it ever kept."""

    def __init__(self, model_storages: set[int]) -> None:
        self.model_storages = model_storages
        self.holders: dict[int, int] = {}
        self.now = self.most = 0

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A block in which tensors are counted."""
        return torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor)


class _Kept:
    """One tensor that autograd keeps, until it lets go of this."""

    def __init__(self, count: LiveBytes, tensor: Tensor) -> None:
        self.count, self.tensor = count, tensor
        storage = tensor.untyped_storage()
        self.key, self.num_bytes = storage.data_ptr(), storage.nbytes()
        if self.key in count.model_storages:
            self.num_bytes = 0
        count.holders[self.key] = count.holders.get(self.key, 0) + 1
        if count.holders[self.key] == 1:
            count.now += self.num_bytes
            count.most = max(count.most, count.now)

    def __del__(self) -> None:
        self.count.holders[self.key] -= 1
        if not self.count.holders[self.key]:
            del self.count.holders[self.key]
            self.count.now -= self.num_bytes


def make_trainer(name: str, recipe: TrainingConfig, folder: Path) -> Trainer:
    """The preset with random words, features and pictures: their values change no shape."""
    torch.manual_seed(0)
    config = preset(name)
    codebook = LexicalCodebook(
        embeddings=F.normalize(torch.randn(NUM_WORDS, config.embedding_dim), dim=1),
        token_ids=tuple(range(NUM_WORDS)),
        words=tuple(f"word{index}" for index in range(NUM_WORDS)),
        source="random",
    )
    side = config.image_size_px
    crops = np.random.default_rng(0).integers(0, 256, (max(SMALL_BATCHES), side, side, 3), dtype=np.uint8)
    data = TrainingData(
        crops=crops,
        image_features=F.normalize(torch.randn(len(crops), TEXT_WIDTH), dim=1),
        word_features=F.normalize(torch.randn(NUM_WORDS, TEXT_WIDTH), dim=1),
    )
    lpips = Lpips(recipe.perceptual_net) if recipe.perceptual_weight else None
    return Trainer(SpaeTokenizer(config, codebook), recipe, data, folder, lpips=lpips)


def fixed_bytes(trainer: Trainer) -> int:
    """What does not grow with the batch: weights, gradients, two moments of Adam, the average, tables, LPIPS."""
    trained = sum(parameter.numel() for parameter in trainer.parameters) * 4
    other = sum(tensor.numel() * tensor.element_size() for tensor in trainer.model.buffers())
    total = trained * 5 + other * 2
    if trainer.adversary is not None:
        total += sum(parameter.numel() for parameter in trainer.adversary.discriminator.parameters()) * 4 * 4
    if trainer.objective.lpips is not None:
        total += sum(parameter.numel() for parameter in trainer.objective.lpips.parameters()) * 4
    return total


def kept_bytes(name: str, recipe: TrainingConfig) -> tuple[int, int]:
    """Most bytes kept for backward passes in one step, and the fixed ones."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(name, recipe, Path(folder))
        modules = [trainer.model, trainer.adversary and trainer.adversary.discriminator, trainer.objective.lpips]
        storages = {
            tensor.untyped_storage().data_ptr()
            for module in modules
            if module is not None
            for tensor in [*module.parameters(), *module.buffers()]
        }
        count = LiveBytes(storages)
        inputs: list[tuple[ResidualBlock, Tensor]] = []
        looks = [
            block.register_forward_pre_hook(lambda block, given: inputs.append((block, given[0].detach())))
            for block in trainer.model.modules()
            if isinstance(block, ResidualBlock) and block.recomputes
        ]
        with count.hooks():
            next(trainer.steps())
        for look in looks:
            look.remove()
        return count.most + largest_block(inputs, storages), fixed_bytes(trainer)


def largest_block(inputs: list[tuple[ResidualBlock, Tensor]], storages: set[int]) -> int:
    """Most bytes that one block keeps while it is computed again; recomputing hides them from the hooks."""
    most = 0
    for block, given in inputs:
        count = LiveBytes(storages)
        block.recomputes = False
        with count.hooks(), torch.autocast("cpu", torch.bfloat16):
            block(given.clone().requires_grad_())
        most = max(most, count.most)
    return most


def main() -> None:
    """Measure the small batches, draw the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="spae-b-128")
    parser.add_argument("--batch-size", type=int, default=256, help="to draw the line to")
    parser.add_argument("--recipe", help="JSON of recipe settings to change")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    in_float32 = F.group_norm
    F.group_norm = lambda inputs, groups, weight, bias, eps: in_float32(inputs.float(), groups, weight, bias, eps)
    settings = asdict(RECIPES[arguments.preset]()) | json.loads(arguments.recipe or "{}")
    measured = []
    for batch_size in SMALL_BATCHES:
        recipe = TypeAdapter(TrainingConfig).validate_python(
            settings | {"batch_size": batch_size, "matched_start": False, "num_steps": 2, "checkpoint_every": 3}
        )
        kept, fixed = kept_bytes(arguments.preset, recipe)
        measured.append(kept)
        print(f"batch {batch_size}: {kept / GB:.2f} GB kept for backward passes, {fixed / GB:.2f} GB fixed", flush=True)
    a_picture = (measured[1] - measured[0]) / (SMALL_BATCHES[1] - SMALL_BATCHES[0])
    whole = (fixed + measured[0] + a_picture * (arguments.batch_size - SMALL_BATCHES[0])) * MARGIN
    print(
        f"{arguments.preset}: {a_picture / 1e6:.0f} MB a picture; at batch {arguments.batch_size} about "
        f"{whole / GB:.0f} GB with a tenth for what is not counted"
    )
    if arguments.json:
        write_result(
            arguments.json,
            "training_memory",
            versions=installed("torch", "numpy"),
            ours={"kept_bytes": measured, "fixed_bytes": fixed, "batch_size": arguments.batch_size, "bytes": whole},
            equal=True,
        )


if __name__ == "__main__":
    main()

"""Pixels to word pyramids: the model inside the pipeline.

The model always sees one fixed batch shape, the last batch padded with black pictures: only then are its
sums, and so the tokens, the same bit for bit whatever the neighbours, the order and the number of threads. Where
memory runs out, fewer such batches are on the device at once (`MemoryLadder`).

Legend: S side of the model's input in pixels, N layers written, h×w grid of a layer.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.errors import UsageError
from pipelines.stages.memory_ladder import MemoryLadder
from pipelines.stages.stage import Resources, Stage, StageResult
from schemas.tokens import token_column, token_fields

if TYPE_CHECKING:
    from torch import Tensor

    from spae_core.tokenizer import SpaeTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizeImages(Stage):
    """Give each picture its pyramid of code indices.

    Attributes:
        model: Name or folder of the model; loaded by `setup`.
        model_sha256: Hash the loaded model must have: all workers of a run use the same weights.
        num_layers: Layers given out, N, coarse to fine.
        batch_size: Pictures of the model's one batch shape; part of a run's settings.
        batches_per_block: Such batches that are on the device together, as long as they fit; changes no token.
        device: `cpu`, `cuda` or `cuda:N`.
        gpu_fraction: Share of a GPU one copy takes.
    """

    name = "tokenize_images"

    model: str
    model_sha256: str
    num_layers: int
    batch_size: int = 8
    batches_per_block: int = 1
    device: str = "cpu"
    gpu_fraction: float = 0.0

    @property
    def resources(self) -> Resources:
        """A block of the model's batches, and its share of a GPU."""
        num_rows = self.batch_size * self.batches_per_block
        return Resources(num_cpus=1.0, gpu_fraction=self.gpu_fraction, batch_size=num_rows)

    @property
    def input_schema(self) -> pa.Schema:
        """`pixels`: S·S·3 bytes of uint8 RGB, row by row from the top."""
        return pa.schema([("pixels", pa.binary())])

    @property
    def output_schema(self) -> pa.Schema:
        """`tokens_0` … `tokens_{N-1}`."""
        return pa.schema(token_fields(self.num_layers))

    def setup(self) -> None:
        """Load the model.

        Raises:
            UsageError: If it is not the model the run was planned with.
            ModelError: If it is unknown or damaged.
        """
        got = self._tokenizer.model_sha256
        if got != self.model_sha256:
            raise UsageError(
                f"model {self.model}: expected weights of sha256 {self.model_sha256}, got {got}. "
                "Give every worker the same model."
            )

    def run(self, batch: pa.RecordBatch) -> StageResult:
        """Tokenize a batch; see `Stage.run`. The `pixels` column ends here, all others are passed through."""
        self.check_input(batch)
        columns = self._tokenize(batch["pixels"]) if batch.num_rows else self._no_tokens()
        passed = self.passed_through(batch)
        fields = [*(batch.schema.field(name) for name in passed), *self.output_schema]
        arrays = [*(batch[name] for name in passed), *columns]
        return StageResult(batch=pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))

    def _tokenize(self, pixels: pa.Array) -> list[pa.Array]:
        """One `list<int32>` array a layer, for any number of pictures."""
        import torch

        side = self._tokenizer.config.image_size_px
        num_batches = -(-len(pixels) // self.batch_size)
        images = np.zeros((num_batches * self.batch_size, side, side, 3), np.uint8)
        for row, picture in enumerate(pixels):
            images[row] = np.frombuffer(picture.as_py(), np.uint8).reshape(side, side, 3)
        blocks: list[list[NDArray[np.int32]]] = []
        start = 0
        while start < len(images):
            block = images[start : start + self._ladder.block_size]
            try:
                blocks.append(self._tokenize_block(block))
            except torch.OutOfMemoryError as error:
                self._ladder.step_down(error, len(block))
            else:
                self._ladder.step_done()
                start += len(block)
        columns = []
        for layer in range(self.num_layers):
            indices = np.concatenate([block[layer] for block in blocks])[: len(pixels)]
            offsets = np.arange(len(pixels) + 1, dtype=np.int32) * indices.shape[1]
            field = self.output_schema.field(token_column(layer))
            columns.append(pa.ListArray.from_arrays(offsets, indices.ravel(), type=field.type))
        return columns

    def _tokenize_block(self, images: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
        """Tokens (B, h·w) of each layer for some whole batches, together on the device.

        Raises:
            torch.OutOfMemoryError: If they do not fit.
        """
        import torch

        resident = self.to_device(images)
        pyramids = []
        for batch in resident.split(self.batch_size):
            inputs = batch.permute(0, 3, 1, 2).float().div_(255).contiguous()
            pyramids.append(self._tokenizer.tokenize(inputs).code_indices)
        return [
            torch.cat([pyramid[layer].flatten(1) for pyramid in pyramids]).cpu().numpy().astype(np.int32)
            for layer in range(self.num_layers)
        ]

    def to_device(self, images: NDArray[np.uint8]) -> "Tensor":
        """Place a block of pictures (B, S, S, 3) where the model is.

        Raises:
            torch.OutOfMemoryError: If it does not fit.
        """
        import torch

        return torch.from_numpy(images).to(self.device)

    def _no_tokens(self) -> list[pa.Array]:
        return [pa.array([], field.type) for field in self.output_schema]

    @cached_property
    def _ladder(self) -> MemoryLadder:
        return MemoryLadder(batch_size=self.batch_size, block_size=self.batch_size * self.batches_per_block)

    @cached_property
    def _tokenizer(self) -> "SpaeTokenizer":
        from spae_core.tokenizer import SpaeTokenizer

        return SpaeTokenizer.from_pretrained(self.model, device=self.device)

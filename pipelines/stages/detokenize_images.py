"""Word pyramids back to pixels, from as many layers as asked for.

Like tokenizing, the model sees one fixed batch shape, so a picture does not depend on its neighbours.

Legend: S side of the model's picture in pixels, N layers used, h×w grid of a layer, V codebook size.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UsageError
from pipelines.stages.stage import RejectedRow, Resources, Stage, StageResult
from schemas.tokens import token_column, token_fields

if TYPE_CHECKING:
    from spae_core.tokenizer import SpaeTokenizer


@dataclass(frozen=True, kw_only=True)
class DetokenizeImages(Stage):
    """Give each pyramid its picture; rows whose tokens do not fit the model are rejected.

    Attributes:
        model: Name or folder of the model; loaded by `setup`.
        model_sha256: Hash of the weights that made the tokens.
        codebook_sha256: Hash of the codebook the tokens point into.
        num_layers: Layers to decode from, N, coarse to fine.
        batch_size: Pictures of the model's one batch shape.
        device: `cpu`, `cuda` or `cuda:N`.
        gpu_fraction: Share of a GPU one copy takes.
    """

    name = "detokenize_images"

    model: str
    model_sha256: str
    codebook_sha256: str
    num_layers: int
    batch_size: int = 8
    device: str = "cpu"
    gpu_fraction: float = 0.0

    @property
    def resources(self) -> Resources:
        """The model's batch size, and its share of a GPU."""
        return Resources(num_cpus=1.0, gpu_fraction=self.gpu_fraction, batch_size=self.batch_size)

    @property
    def input_schema(self) -> pa.Schema:
        """`sample_id`, `uri`, `tokens_0` … `tokens_{N-1}`."""
        return pa.schema([("sample_id", pa.string()), ("uri", pa.string()), *token_fields(self.num_layers)])

    @property
    def output_schema(self) -> pa.Schema:
        """`sample_id`, `uri`, `pixels`: S·S·3 bytes of uint8 RGB, row by row from the top."""
        return pa.schema([("sample_id", pa.string()), ("uri", pa.string()), ("pixels", pa.binary())])

    @property
    def image_size_px(self) -> int:
        """S; loads the model."""
        return self._tokenizer.config.image_size_px

    def setup(self) -> None:
        """Load the model.

        Raises:
            UsageError: If the tokens were made with another codebook or other weights; the message has both
                hashes.
            ModelError: If the model is unknown or damaged.
        """
        model = self._tokenizer
        for what, expected, got in (
            ("codebook", self.codebook_sha256, model.codebook_sha256),
            ("weights", self.model_sha256, model.model_sha256),
        ):
            if expected != got:
                raise UsageError(
                    f"{what} of model {self.model}: expected sha256 {expected}, which made the tokens, "
                    f"got {got}. Give the model that made them with --model."
                )
        num_layers = len(model.config.pyramid.layer_grids)
        if not 1 <= self.num_layers <= num_layers:
            raise UsageError(
                f"number of layers: expected 1 to {num_layers} of model {self.model}, "
                f"got {self.num_layers}. Ask for fewer."
            )

    def run(self, batch: pa.RecordBatch) -> StageResult:
        """Detokenize a batch; see `Stage.run`. All other columns end here."""
        grids = self._tokenizer.config.pyramid.layer_grids[: self.num_layers]
        layers, reasons = [], np.full(batch.num_rows, "", dtype=object)
        for layer, (height, width) in enumerate(grids):
            indices, wrong = self._layer(batch[token_column(layer)], layer, height * width)
            layers.append(indices.reshape(-1, height, width))
            for row, reason in wrong.items():
                reasons[row] = reasons[row] or reason
        kept = pa.array([row for row in range(batch.num_rows) if not reasons[row]], pa.int64())
        rejected = tuple(
            RejectedRow(
                sample_id=batch["sample_id"][row].as_py(),
                uri=batch["uri"][row].as_py(),
                stage=self.name,
                error_class="BadTokens",
                message=reason,
            )
            for row, reason in enumerate(reasons)
            if reason
        )
        rows = kept.to_numpy(zero_copy_only=False)
        pictures = self._pictures([indices[rows] for indices in layers])
        columns = [batch["sample_id"].take(kept), batch["uri"].take(kept), pa.array(pictures, pa.binary())]
        return StageResult(batch=pa.RecordBatch.from_arrays(columns, schema=self.output_schema), rejected=rejected)

    def _layer(self, column: pa.Array, layer: int, num_tokens: int) -> tuple[np.ndarray, dict[int, str]]:
        """Indices of one layer (rows, h·w), zero where they are wrong, and what is wrong by row."""
        codebook_size = self._tokenizer.codebook.codebook_size
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        values = pc.fill_null(column.flatten(), -1).to_numpy(zero_copy_only=False)
        ends = np.cumsum(lengths)
        indices = np.zeros((len(column), num_tokens), np.int64)
        wrong: dict[int, str] = {}
        for row, (length, end) in enumerate(zip(lengths, ends, strict=True)):
            tokens = values[end - length : end]
            outside = tokens[(tokens < 0) | (tokens >= codebook_size)]
            if length != num_tokens:
                wrong[row] = f"layer {layer}: expected {num_tokens} tokens, got {length}. Tokenize it again."
            elif outside.size:
                bad = outside[0]
                wrong[row] = (
                    f"layer {layer}: expected code indices in [0, {codebook_size}), got {bad}. Tokenize it again."
                )
            else:
                indices[row] = tokens
        return indices, wrong

    def _pictures(self, layers: list[np.ndarray]) -> list[bytes]:
        """Decode indices, one array (rows, h, w) a layer, in the one batch shape."""
        import torch

        from spae_core.structs import TokenPyramid

        num_rows = len(layers[0])
        if not num_rows:
            return []
        padding = self.batch_size - num_rows
        padded = tuple(
            torch.from_numpy(np.pad(layer, ((0, padding), (0, 0), (0, 0)))).to(self.device) for layer in layers
        )
        pyramid = TokenPyramid(code_indices=padded, codebook=self._tokenizer.codebook)
        images = self._tokenizer.detokenize(pyramid, num_layers=self.num_layers)[:num_rows]
        pixels = images.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return [picture.tobytes() for picture in pixels.contiguous().cpu().numpy()]

    @cached_property
    def _tokenizer(self) -> "SpaeTokenizer":
        from spae_core.tokenizer import SpaeTokenizer

        return SpaeTokenizer.from_pretrained(self.model, device=self.device)

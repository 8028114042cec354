"""`TokenizeImages`: encoded pictures to word pyramids, as one step of anybody's Beam pipeline."""

import copy
import hashlib
import uuid
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection, TaggedOutput

from pipelines.batch_bytes import batch_from_bytes, batch_to_bytes
from pipelines.engines.beam.model_handler import StageModelHandler
from pipelines.engines.beam.tally import Tally
from pipelines.engines.beam.transforms import TokenizeRows
from pipelines.errors import BadDataError
from pipelines.stages import tokenize_images
from pipelines.stages.decode_images import DecodeImages
from pipelines.stages.stage import RejectedRow
from schemas.tokens import token_column

_TOKENS, _REJECTED = "tokens", "rejected"

#: What a user's picture can be: the encoded file, or a key and the file.
Picture = bytes | tuple[Any, bytes]


class TokenizeImages(beam.PTransform[Any, Any]):
    """Give each picture its pyramid of words.

    Input are the bytes of picture files of any format the project reads, or pairs `(key, bytes)`. Output are
    dicts with `key` (the SHA-256 of the bytes in hex where none was given), `content_sha256`, `width_px`,
    `height_px` and one list of code indices a layer, `tokens_0` (1 of them) to `tokens_{N-1}`.

    A picture that cannot be read fails the pipeline, unless `with_exception_handling()` asks for a second
    output:

        tokens, rejected = pictures | TokenizeImages("spae-smol-128").with_exception_handling()

    whose dicts have `key`, `stage`, `error_class` and `message`. A picture costs none of its neighbours either way.
    """

    def __init__(
        self,
        model: str = "spae-smol-128",
        *,
        num_layers: int | None = None,
        batch_size: int = 8,
        device: str = "cpu",
        gpu_fraction: float = 0.0,
        max_batch_seconds: int | None = None,
    ) -> None:
        """Look the model up; it is loaded here once for its hash, which every worker's copy must have.

        Args:
            model: Name of a model that comes along, or a folder that all workers have.
            num_layers: Layers to give, coarse to fine. Default: all.
            batch_size: Pictures of the model's one batch shape. Tokens of different batch sizes may differ.
            device: `cpu`, `cuda` or `cuda:N`, on the workers.
            gpu_fraction: Share of a GPU one model takes; above 0 the processes of a machine share one model.
            max_batch_seconds: Longest time a picture waits for its batch to fill; for streaming pipelines.

        Raises:
            ModelError: If the model is unknown or damaged.
            ValueError: If it has fewer layers.
        """
        super().__init__()
        from spae_core.tokenizer import SpaeTokenizer

        tokenizer = SpaeTokenizer.from_pretrained(model)
        most_layers = len(tokenizer.config.pyramid.layer_grids)
        self._num_layers = most_layers if num_layers is None else num_layers
        if not 1 <= self._num_layers <= most_layers:
            raise ValueError(
                f"num_layers of {model}: expected 1 to {most_layers}, got {num_layers}. Leave it out for all."
            )
        self._decode = DecodeImages(image_size_px=tokenizer.config.image_size_px)
        self._tokenize = tokenize_images.TokenizeImages(
            model=model,
            model_sha256=tokenizer.model_sha256,
            num_layers=self._num_layers,
            batch_size=batch_size,
            device=device,
            gpu_fraction=gpu_fraction,
        )
        self._max_batch_seconds = max_batch_seconds
        self._handles_exceptions = False

    def with_exception_handling(self) -> "TokenizeImages":
        """The same transform with two outputs: tokens, and what was rejected with its reason."""
        handling = copy.copy(self)
        handling._handles_exceptions = True
        return handling

    def expand(self, pictures: PCollection[Any]) -> Any:  # noqa: ANN401  (one PCollection, or two)
        """Decode, tokenize, and give plain Python values."""
        tally = Tally()
        handler = StageModelHandler(self._tokenize, tally=tally, max_batch_seconds=self._max_batch_seconds)
        outcomes = (
            pictures
            | "To rows" >> beam.Map(_to_row).with_output_types(tuple[Any, bytes])
            | "Tokenize" >> TokenizeRows(feeding_stages=[self._decode], handler=handler, tally=tally)
        )
        results = outcomes | "To dicts" >> beam.ParDo(
            _ToDicts(num_layers=self._num_layers, raises=not self._handles_exceptions)
        ).with_outputs(_REJECTED, main=_TOKENS)
        return (results[_TOKENS], results[_REJECTED]) if self._handles_exceptions else results[_TOKENS]

    def default_label(self) -> str:
        """Name of the step."""
        return f"TokenizeImages({self._tokenize.model})"


def _to_row(picture: Picture) -> tuple[Any, bytes]:
    """A picture as a row of `DecodeImages`, under the user's key."""
    key, content = picture if isinstance(picture, tuple) else (None, picture)
    if not isinstance(content, bytes):
        raise TypeError(
            f"input of TokenizeImages: expected bytes or (key, bytes), got {type(content).__name__}. "
            "Read the picture's file first."
        )
    if not isinstance(picture, tuple):
        key = hashlib.sha256(content).hexdigest()
    # Two elements may have one key, so the row gets an id of its own; it ends with the pipeline.
    row = {"sample_id": uuid.uuid4().hex, "uri": str(key), "bytes": content}
    return key, batch_to_bytes(pa.RecordBatch.from_pylist([row], schema=DecodeImages.INPUT_SCHEMA))


class _ToDicts(beam.DoFn):
    """Outcomes as dicts of plain values, good and rejected to their outputs."""

    def __init__(self, *, num_layers: int, raises: bool) -> None:
        self._columns = ["content_sha256", "width_px", "height_px", *map(token_column, range(num_layers))]
        self._raises = raises

    def process(self, element: tuple[Any, bytes | RejectedRow]) -> Any:  # noqa: ANN401
        key, outcome = element
        if not isinstance(outcome, RejectedRow):
            row = batch_from_bytes(outcome).select(self._columns).to_pylist()[0]
            yield {"key": key, **row}
        elif self._raises:
            raise BadDataError(
                f"picture {key!r}: expected one that can be tokenized, got {outcome.error_class} in {outcome.stage}: "
                f"{outcome.message} Use with_exception_handling() to go on without such pictures."
            )
        else:
            rejected = {"stage": outcome.stage, "error_class": outcome.error_class, "message": outcome.message}
            yield TaggedOutput(_REJECTED, {"key": key, **rejected})

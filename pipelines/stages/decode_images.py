"""Encoded images to small squares of RGB, with the unreadable ones set aside and their reasons told.

What a picture goes through is described in `image_decoding`; what can be wrong with one in `image_faults`.
"""

import hashlib
import warnings
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from pipelines.stages.image_decoding import (
    MAX_PIXELS,
    DecodedImage,
    decode_image,
    decoder_version,
    preprocessing,
)
from pipelines.stages.image_faults import ImageFault, UnreadableImageError
from pipelines.stages.stage import RejectedRow, Resources, Stage, StageResult


@dataclass(frozen=True, kw_only=True)
class DecodeImages(Stage):
    """Decode the bytes of each row; a row that cannot be decoded is rejected, its neighbours are untouched.

    Attributes:
        image_size_px: Side S of the square that is given out; the model's own size.
        max_pixels: Most pixels, width × height, that a file's header may declare. Decoding takes up to 4
            bytes of memory a pixel, and about 6 more for a progressive JPEG.
        batch_size: Most rows of one `run`.
    """

    name = "decode_images"

    image_size_px: int = 128
    max_pixels: int = MAX_PIXELS
    batch_size: int = 32

    INPUT_SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [("sample_id", pa.string()), ("uri", pa.string()), ("bytes", pa.large_binary())]
    )
    OUTPUT_SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("sample_id", pa.string()),
            pa.field("uri", pa.string()),
            pa.field("content_sha256", pa.string()),  # hex, of the encoded bytes
            pa.field("width_px", pa.int32()),  # as a viewer shows it, after rotation
            pa.field("height_px", pa.int32()),
            pa.field("pixels", pa.binary()),  # S * S * 3 bytes: uint8 RGB, row by row from the top
        ]
    )

    def __post_init__(self) -> None:
        """Refuse sizes that no picture can have."""
        for field, value in (("image_size_px", self.image_size_px), ("max_pixels", self.max_pixels)):
            if value < 1:
                raise ValueError(f"{field} of decode_images: expected at least 1, got {value}. Choose a larger one.")

    @property
    def resources(self) -> Resources:
        """One CPU core; decoding releases the interpreter's lock, so threads of one process share it well."""
        return Resources(num_cpus=1.0, batch_size=self.batch_size)

    @property
    def input_schema(self) -> pa.Schema:
        """`sample_id`, `uri`, `bytes` (the encoded file; null if it could not be had)."""
        return self.INPUT_SCHEMA

    @property
    def output_schema(self) -> pa.Schema:
        """`sample_id`, `uri`, `content_sha256`, `width_px`, `height_px`, `pixels`."""
        return self.OUTPUT_SCHEMA

    @property
    def preprocessing(self) -> str:
        """How `pixels` came about, in one line for the metadata of a dataset."""
        return preprocessing(self.image_size_px)

    @property
    def decoder(self) -> str:
        """Decoder and libraries with their versions, for the metadata of a dataset."""
        return decoder_version()

    def setup(self) -> None:
        """Silence Pillow's warnings of damaged metadata, which is ignored; damaged pixels are rejected."""
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*ImagePlugin")

    def run(self, batch: pa.RecordBatch) -> StageResult:
        """Decode a batch; see `Stage.run`. The `bytes` column ends here."""
        self.check_input(batch)
        kept: list[int] = []
        hashes: list[str] = []
        images: list[DecodedImage] = []
        rejected: list[RejectedRow] = []
        for row, encoded in enumerate(batch["bytes"]):
            content = encoded.as_py()
            try:
                image = self._decode(content)
            except UnreadableImageError as error:
                rejected.append(
                    RejectedRow(
                        sample_id=batch["sample_id"][row].as_py(),
                        uri=batch["uri"][row].as_py(),
                        stage=self.name,
                        error_class=error.fault.value,
                        message=str(error),
                    )
                )
                continue
            kept.append(row)
            hashes.append(hashlib.sha256(content).hexdigest())
            images.append(image)
        return StageResult(batch=self._to_batch(batch, kept, hashes, images), rejected=tuple(rejected))

    def _decode(self, content: bytes | None) -> DecodedImage:
        if content is None:
            raise UnreadableImageError(
                ImageFault.EMPTY_FILE, "encoded image: expected its bytes, got null. Fetch the file again."
            )
        return decode_image(content, image_size_px=self.image_size_px, max_pixels=self.max_pixels)

    def _to_batch(
        self, batch: pa.RecordBatch, kept: list[int], hashes: list[str], images: list[DecodedImage]
    ) -> pa.RecordBatch:
        rows = pa.array(kept, pa.int64())
        columns = {
            "sample_id": batch["sample_id"].take(rows),
            "uri": batch["uri"].take(rows),
            "content_sha256": pa.array(hashes, pa.string()),
            "width_px": pa.array([image.width_px for image in images], pa.int32()),
            "height_px": pa.array([image.height_px for image in images], pa.int32()),
            "pixels": pa.array([image.pixels.tobytes() for image in images], pa.binary()),
        }
        passed = self.passed_through(batch)
        fields = [*self.OUTPUT_SCHEMA, *(batch.schema.field(name) for name in passed)]
        arrays = [*columns.values(), *(batch[name].take(rows) for name in passed)]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

"""`spae crops INPUT… --out DIR`: a small set of crops to train on, which travels to where the GPU is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from jobs.console import note, say


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeCrops:
    """Cut pictures into square crops, once: several a picture at several scales, as WebP in Parquet files.

    `spae train --data DIR` takes the folder, here or on another machine. The same inputs and settings give the same
    bytes; a set that is already there is kept.
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT…")]
    """Pictures: folders, globs, files, tars, Parquet files or lists; local paths or urls. Animated ones give several
    frames."""

    out: Path
    """Folder of the set."""

    image_size_px: int | None = None
    """Side of a crop. Default: 128."""

    image_column: str | None = None
    """Column of Parquet files and lists that holds the pictures or their uris. Default: found by name and type."""

    max_pictures_per_input: int | None = None
    """Of an INPUT with more pictures use only so many, chosen by a hash of their names. Default: all."""

    crops_per_megapixel: float | None = None
    """How many crops a picture gives, within 4 to 120. Default: 24."""

    min_scale: float | None = None
    """Smallest side of a crop as a share of the picture's shorter side. Default: .12."""

    frame_step: int | None = None
    """Of an animated picture, use every n-th frame. Default: 8."""

    webp_quality: int | None = None
    """1 to 100. Default: 85."""

    min_webp_bytes: int | None = None
    """Leave out crops that take fewer bytes: they show too little to learn from. Default: keep all."""

    seed: int = 0
    """Of the crops."""

    def run(self) -> int:
        """List, cut, write.

        Raises:
            PipelineError: If an input does not exist or no picture can be read.
        """
        from jobs.training_inputs import cut_crops
        from pipelines.training.crop_cutting import CropConfig

        # What is not given keeps the cutter's own default.
        settings = {
            field.name: value for field in fields(CropConfig) if (value := getattr(self, field.name, None)) is not None
        }
        crops = cut_crops(
            self.inputs,
            self.out,
            CropConfig(**settings),
            max_pictures_per_input=self.max_pictures_per_input,
            image_column=self.image_column,
        )
        say(f"crops: {crops.folder}: {crops.num_crops} in {len(crops.parts)} parts, {crops.size_bytes / 1e6:.1f} MB")
        note(f"next: spae train --data {quote(str(self.out))} --codebook DIR --out DIR")
        return 0

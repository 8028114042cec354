"""`spae detokenize TOKENS --out DIR`: word pyramids back to pictures, one PNG each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.console import ProgressDisplay, say

if TYPE_CHECKING:
    from pipelines.picture_folder import PictureFolder
    from pipelines.stages.detokenize_images import DetokenizeImages
    from pipelines.token_dataset import TokenDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class DetokenizeCorpus:
    """Decode a token dataset into PNG files, with an index of which is which.

    Files are named after the source file, with the first digits of the sample_id; `index.parquet` says which
    picture is which. Run the same command again to resume: pictures that are there are not made again.
    """

    tokens: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """A run, a folder or a glob of its Parquet files, or one such file; local or a url."""

    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Folder or url for the pictures."""

    num_layers: int | None = None
    """Layers to decode from, coarse to fine. Default: all in the dataset."""

    model: str | None = None
    """The model that made the tokens, where it is not found under the name in the dataset."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes a GPU if there is one."""

    batch_size: int | None = None
    """Pictures the model makes at once. Default: 8 on a CPU, 128 on a GPU."""

    def run(self) -> int:
        """Decode what is missing.

        Returns:
            0 if every row has its picture, 3 if some rows' tokens were bad.

        Raises:
            PipelineError: With the exit code of each case; see `pipelines.errors`.
            ModelError: If the model is unknown or damaged.
        """
        from pipelines.errors import BadDataError, UsageError
        from pipelines.picture_folder import PictureFolder, PictureSettings
        from pipelines.storage import open_storage
        from pipelines.token_dataset import open_token_dataset

        dataset = open_token_dataset(self.tokens)
        num_layers = dataset.num_layers if self.num_layers is None else self.num_layers
        if not 1 <= num_layers <= dataset.num_layers:
            raise UsageError(
                f"--num-layers: expected 1 to {dataset.num_layers} in {self.tokens}, got {num_layers}. "
                "Leave it out for all layers."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size: expected at least 1, got {self.batch_size}. Give a larger one.")
        stage = self._stage(dataset, num_layers)
        stage.setup()
        folder = PictureFolder.open(
            open_storage(self.out),
            PictureSettings(
                model_sha256=dataset.metadata.model_sha256,
                codebook_sha256=dataset.metadata.codebook_sha256,
                num_layers=num_layers,
                image_size_px=stage.image_size_px,
            ),
        )
        bad_rows = self._work(dataset, stage, folder)
        say(f"{folder.num_written} pictures written, {folder.num_kept} were there: {folder.storage.url()}")
        for line in bad_rows[:5]:
            say(f"no picture for {line}")
        if bad_rows:
            say(f"{len(bad_rows)} rows have bad tokens; `spae verify` the run")
            return BadDataError.exit_code
        return 0

    def _stage(self, dataset: TokenDataset, num_layers: int) -> DetokenizeImages:
        from pipelines.devices import choose_device, default_batch_size
        from pipelines.stages.detokenize_images import DetokenizeImages

        device = choose_device(self.device)
        return DetokenizeImages(
            model=self.model or dataset.metadata.model,
            model_sha256=dataset.metadata.model_sha256,
            codebook_sha256=dataset.metadata.codebook_sha256,
            num_layers=num_layers,
            batch_size=self.batch_size or default_batch_size(device),
            device=device,
        )

    def _work(self, dataset: TokenDataset, stage: DetokenizeImages, folder: PictureFolder) -> list[str]:
        """Decode the rows whose picture is missing; one line for each row that has no right tokens."""
        from pipelines.bisection import run_isolating

        bad_rows: list[str] = []
        num_done = 0
        try:
            with folder, ProgressDisplay("detokenizing", total=dataset.num_rows) as display:
                for batch in dataset.batches(stage.input_schema.names, stage.resources.batch_size):
                    missing = folder.without_kept(batch)
                    if missing.num_rows:
                        result = run_isolating(stage, missing)
                        folder.add(result.batch)
                        bad_rows += [f"{row.uri}: {row.message}" for row in result.rejected]
                    num_done += batch.num_rows
                    display.update(num_done)
        except KeyboardInterrupt as interruption:
            interruption.add_note("the pictures written are whole.")
            raise
        return bad_rows

"""Runs of the tiny model over made-up pictures, with any engine, for tests that compare engines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from runs import files_below

from pipelines.engine import Engine
from pipelines.engines.beam import BeamEngine
from pipelines.engines.local import LocalEngine
from pipelines.engines.ray_data import RayEngine, RayOptions
from pipelines.readers import ListingNotes, list_inputs, open_inputs
from pipelines.runs.claim import ClaimedRun, claim_run
from pipelines.runs.commit import ShardWriter
from pipelines.runs.describe_run import describe_run
from pipelines.runs.plan_building import build_plan
from pipelines.stages.read_inputs import ReadInputs
from pipelines.stages.stage import Stage, StageResult
from pipelines.stages.tokenize_images import TokenizeImages
from pipelines.storage import LocalStorage


@dataclass(frozen=True, kw_only=True)
class PoisonedTokenizer(TokenizeImages):
    """The tokenizer, but some pictures make the model raise, as one in a million does in nobody's test."""

    name: ClassVar[str] = "tokenize_images"

    poison_names: tuple[str, ...] = ()

    def run(self, batch: pa.RecordBatch) -> StageResult:
        names = {Path(uri).name for uri in batch["uri"].to_pylist()}
        if names & set(self.poison_names):
            raise RuntimeError("the model choked")
        return super().run(batch)


@dataclass(kw_only=True)
class TinyRun:
    """One run of the tiny model, claimed and ready for an engine.

    Attributes:
        folder: Where the run is.
        claimed: Its plan and config.
        stages: The feeding stages and the model's, fresh.
    """

    folder: Path
    claimed: ClaimedRun
    feeding: Sequence[Stage]
    model: Stage
    seen: list = field(default_factory=list)

    @classmethod
    def over(
        cls,
        photos: Path,
        folder: Path,
        model_dir: Path,
        *,
        num_shards: int = 5,
        batch_size: int = 8,
        poison_names: tuple[str, ...] = (),
    ) -> "TinyRun":
        scratch = folder.with_name(f"{folder.name}-plan")
        scratch.mkdir(parents=True, exist_ok=True)
        for old in scratch.iterdir():
            old.unlink()
        entries = list_inputs(open_inputs([str(photos)]), ListingNotes())
        draft = build_plan(entries, folder=scratch, num_shards=num_shards)
        described = describe_run(
            draft.summary, model=str(model_dir), num_layers=None, batch_size=batch_size, device="cpu", command={}
        )
        settings = described.config.settings
        model = PoisonedTokenizer(
            model=str(model_dir),
            model_sha256=settings.model_sha256,
            num_layers=settings.num_layers,
            batch_size=batch_size,
            poison_names=poison_names,
        )
        claimed = claim_run(LocalStorage(folder), described.config, draft, described.codebook)
        return cls(folder=folder, claimed=claimed, feeding=(ReadInputs(), described.decode), model=model)

    @property
    def writer(self) -> ShardWriter:
        return ShardWriter(storage=LocalStorage(self.folder), config=self.claimed.config)

    def local(self, **settings: object) -> LocalEngine:
        return LocalEngine(feeding_stages=self.feeding, model_stage=self.model, **{"num_threads": 2, **settings})

    def beam(self, **settings: object) -> BeamEngine:
        return BeamEngine(feeding_stages=self.feeding, model_stage=self.model, **settings)

    def ray(self, **options: object) -> RayEngine:
        return RayEngine(feeding_stages=self.feeding, model_stage=self.model, options=RayOptions(**options))

    def run(self, engine: Engine, shards: Sequence[int] | None = None):
        """Do the missing shards, or those named; the report. Progress is kept in `seen`."""
        wanted = self.claimed.missing if shards is None else shards
        return engine.run_shards(self.claimed.plan, wanted, self.writer, self.seen.append)

    def parts(self) -> dict[str, bytes]:
        """Content of the data and quarantine files."""
        files = files_below(self.folder)
        return {name: data for name, data in files.items() if name.startswith(("data/", "quarantine/"))}

"""Stages for tests of engines: they pass rows on until a uri tells them to die, to raise or to reject."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from runs import LAYER_GRIDS, token_rows

from pipelines.errors import UsageError
from pipelines.stages.stage import RejectedRow, Resources, Stage, StageResult
from schemas.tokens import tokens_schema

SCHEMA = pa.schema([("sample_id", pa.string()), ("uri", pa.string())])


class StageOfIds(Stage):
    """What stages of tests have in common: rows of an id and a uri come, and go."""

    @property
    def input_schema(self) -> pa.Schema:
        return SCHEMA

    @property
    def output_schema(self) -> pa.Schema:
        return SCHEMA


@dataclass(frozen=True, kw_only=True)
class PassOn(StageOfIds):
    """Gives rows on as they are.

    Attributes:
        dies_on: End of uris that end the process, every time.
        dies_by: Signal it dies of, or None for `os._exit(3)`.
        rejects: End of uris that are rejected.
        kills_once: A file; where it is absent the first run makes it and kills the process.
        seconds: What a run takes.
        gpu_fraction: Share of a GPU it asks for.
        batch_size: Most rows of a run.
        notes: Folder for a file a process, with what CUDA devices it is shown.
        num_meeting: Processes that `setup` waits for; so many are sure to be there at once.
        refuses: What `setup` raises as a user's error.
    """

    name = "pass_on"

    dies_on: str | None = None
    dies_by: int | None = None
    rejects: str | None = None
    kills_once: Path | None = None
    seconds: float = 0.0
    gpu_fraction: float = 0.0
    batch_size: int = 8
    notes: Path | None = None
    num_meeting: int = 1
    refuses: str | None = None

    def setup(self) -> None:
        if self.refuses is not None:
            raise UsageError(self.refuses)
        if self.notes is None:
            return
        (self.notes / str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
        give_up = time.monotonic() + 120
        while len(list(self.notes.iterdir())) < self.num_meeting and time.monotonic() < give_up:
            time.sleep(0.05)

    @property
    def resources(self) -> Resources:
        return Resources(batch_size=self.batch_size, gpu_fraction=self.gpu_fraction)

    def run(self, batch: pa.RecordBatch) -> StageResult:
        time.sleep(self.seconds)
        if batch.num_rows and self.kills_once is not None and not self.kills_once.exists():
            self.kills_once.write_text("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.dies_on is not None and any(uri.endswith(self.dies_on) for uri in batch["uri"].to_pylist()):
            if self.dies_by is None:
                os._exit(3)
            os.kill(os.getpid(), self.dies_by)
        bad = [self.rejects is not None and uri.endswith(self.rejects) for uri in batch["uri"].to_pylist()]
        rejected = tuple(
            RejectedRow(sample_id=row["sample_id"], uri=row["uri"], stage=self.name, error_class="Bad", message="bad")
            for row in batch.filter(pa.array(bad, pa.bool_())).to_pylist()
        )
        return StageResult(batch=batch.filter(pa.array([not b for b in bad], pa.bool_())), rejected=rejected)


@dataclass(frozen=True, kw_only=True)
class FakeModel(PassOn):
    """Stands for the model: tokens that follow from the id, in the grids of `runs.LAYER_GRIDS`."""

    name = "fake_model"

    @property
    def output_schema(self) -> pa.Schema:
        return tokens_schema(len(LAYER_GRIDS))

    def run(self, batch: pa.RecordBatch) -> StageResult:
        result = super().run(batch.select(["sample_id", "uri"]))
        tokens = token_rows(result.batch["sample_id"].to_pylist())
        uri = tokens.schema.get_field_index("uri")
        return StageResult(
            batch=tokens.set_column(uri, tokens.schema.field(uri), result.batch["uri"]), rejected=result.rejected
        )

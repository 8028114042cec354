"""A stage whose process may die: it runs in a child, and a picture that kills it is set aside like any other bad one.

Decoders are C code fed with bytes from anywhere. A fault there ends the process it runs in; here that is a child
that is started again, and the batch is halved until the picture that did it stands alone. It is tried once more by
itself before it is given up: the child may have died of something else.
"""

from dataclasses import dataclass

import pyarrow as pa

from pipelines.child_process import ChildDiedError, run_in_child
from pipelines.stages.stage import RejectedRow, Resources, Stage, StageResult

#: Error class, in the quarantine, of pictures that ended the process they were worked on in.
WORKER_DIED = "WorkerDied"

_TRIES_ALONE = 2


@dataclass(frozen=True, kw_only=True)
class Supervised(Stage):
    """Run another stage in a child process.

    Attributes:
        stage: The stage; its class must be importable by the child.
    """

    stage: Stage

    @property
    def name(self) -> str:  # type: ignore[override]
        """The stage's own."""
        return self.stage.name

    @property
    def resources(self) -> Resources:
        """The stage's own."""
        return self.stage.resources

    @property
    def input_schema(self) -> pa.Schema:
        """The stage's own."""
        return self.stage.input_schema

    @property
    def output_schema(self) -> pa.Schema:
        """The stage's own."""
        return self.stage.output_schema

    def run(self, batch: pa.RecordBatch) -> StageResult:
        """Run a batch in a child; see `Stage.run`. Rows that kill it are rejected as `WorkerDied`.

        Raises:
            ChildStartError: If no child can be started.
        """
        if batch.num_rows == 0:
            return self.stage.run(batch)
        how = ""
        for _ in range(_TRIES_ALONE if batch.num_rows == 1 else 1):
            try:
                return run_in_child(self.stage, batch)
            except ChildDiedError as death:
                how = str(death)
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            first, second = self.run(batch[:half]), self.run(batch[half:])
            return StageResult(
                batch=pa.concat_batches([first.batch, second.batch]), rejected=first.rejected + second.rejected
            )
        row = RejectedRow(
            sample_id=batch["sample_id"][0].as_py(),
            uri=batch["uri"][0].as_py(),
            stage=self.name,
            error_class=WORKER_DIED,
            message=f"process of {self.name}: expected it to live through the file, got {how}, twice. "
            "Look at the file with care: it finds a fault of a library, or needs more memory than there is.",
        )
        return StageResult(batch=self.stage.run(batch[:0]).batch, rejected=(row,))

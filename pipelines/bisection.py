"""Run a stage so that a poison row costs its neighbours nothing: a failing batch is halved till it is alone.

Stages reject rows they know to be bad. This is for the rows nobody foresaw: those that make a decoder or the
model raise. Faults of the program or of the machine (wrong columns, a full disk, out of GPU memory) are not a
row's doing and are passed on.
"""

from collections.abc import Sequence

import pyarrow as pa

from pipelines.stages.stage import RejectedRow, Stage, StageResult
from spae_core.errors import ModelError

#: What a poison row may raise in a library. TypeError and AttributeError are faults of the program.
_POISON = (ArithmeticError, LookupError, OSError, RuntimeError, ValueError, MemoryError)


def run_isolating(stage: Stage, batch: pa.RecordBatch) -> StageResult:
    """Run a stage; rows that make it raise are rejected, all others go through.

    A batch of n rows with one poison row costs about 2·log2(n) extra runs.

    Args:
        stage: A stage that has been set up.
        batch: Any number of rows, with `sample_id` and `uri`.

    Returns:
        Good rows in order and all rejected ones, also those the stage rejected itself.
    """
    try:
        return stage.run(batch)
    except _POISON as error:
        if isinstance(error, ModelError):
            raise
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            first, second = run_isolating(stage, batch[:half]), run_isolating(stage, batch[half:])
            return _join([first, second])
        if batch.num_rows == 0:
            raise
        row = RejectedRow(
            sample_id=batch["sample_id"][0].as_py(),
            uri=batch["uri"][0].as_py(),
            stage=stage.name,
            error_class=type(error).__name__,
            message=str(error) or "no message",
        )
        return StageResult(batch=stage.run(batch[:0]).batch, rejected=(row,))


def _join(results: Sequence[StageResult]) -> StageResult:
    """Put results of consecutive rows together; at least one."""
    batch = pa.concat_batches([result.batch for result in results])
    return StageResult(batch=batch, rejected=tuple(row for result in results for row in result.rejected))

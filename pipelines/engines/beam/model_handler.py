"""A stage behind Beam's RunInference: loaded once where Beam wants it, fed in bounded batches, poison isolated.

RunInference sends a whole batch to its dead letters when one row of it makes the model raise. This handler halves
such a batch till the row stands alone, so the others get their predictions.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from pipelines.bisection import run_isolating
from pipelines.engines.beam.rows import join_rows, split_rows
from pipelines.engines.beam.tally import Tally
from pipelines.stages.stage import RejectedRow, Stage

#: A row and what it belongs to: a shard of a plan, or whatever key another pipeline gives it.
KeyedRow = tuple[Any, bytes]

#: The row after the stage, or why there is none.
Outcome = tuple[Any, bytes | RejectedRow]


class LoadedStage:
    """A stage that has been set up, with one method of plain bytes: Beam may host it in another process."""

    def __init__(self, stage: Stage) -> None:
        stage.setup()
        self._stage = stage

    def run_rows(self, rows: Sequence[bytes]) -> tuple[list[bytes | RejectedRow], float]:
        """Run at most a batch of rows.

        Args:
            rows: Rows of one schema; their `sample_id` differ.

        Returns:
            One outcome a row, in order, and the seconds it took.
        """
        from time import perf_counter

        started = perf_counter()
        batch = join_rows(rows)
        result = run_isolating(self._stage, batch)
        rejected = {row.sample_id: row for row in result.rejected}
        good = iter(split_rows(result.batch))
        outcomes = [rejected[i] if i in rejected else next(good) for i in batch["sample_id"].to_pylist()]
        return outcomes, perf_counter() - started


class StageModelHandler(ModelHandler[KeyedRow, Outcome, LoadedStage]):
    """Runs a stage, usually the tokenizer, for RunInference.

    Batches have the size the stage asks for; the stage itself pads the last of a bundle, so the result does not
    depend on how a runner cuts its bundles.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        tally: Tally | None = None,
        share_across_processes: bool | None = None,
        num_threads: int | None = None,
        max_batch_seconds: int | None = None,
    ) -> None:
        """Describe how to load and feed the stage; nothing is loaded yet.

        Args:
            stage: The stage; it loads its model by name, and checks the hash, on the worker.
            tally: Where to count. Default: Beam's metrics alone.
            share_across_processes: Load it once a machine and let its processes call that one, instead of once
                a process. Default: where the stage takes a share of a GPU.
            num_threads: Threads torch may use in each process, >= 1. Default: torch's own choice.
            max_batch_seconds: Longest time a row waits for its batch to fill; for streams. Default: no limit,
                a batch never waits longer than its bundle.
        """
        batch_size = stage.resources.batch_size
        if share_across_processes is None:
            share_across_processes = stage.resources.gpu_fraction > 0
        super().__init__(
            min_batch_size=batch_size,
            max_batch_size=batch_size,
            max_batch_duration_secs=max_batch_seconds,
            large_model=share_across_processes,
        )
        self._stage = stage
        self._tally = tally or Tally()
        self._num_threads = num_threads

    def load_model(self) -> LoadedStage:
        """Set the stage up.

        Raises:
            UsageError: If the model is not the one the run was planned with.
            ModelError: If it is unknown or damaged.
        """
        if self._num_threads is not None:
            import torch

            torch.set_num_threads(self._num_threads)
        return LoadedStage(self._stage)

    def run_inference(
        self, batch: Sequence[KeyedRow], model: LoadedStage, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Outcome]:
        """One outcome for each row of the batch, in order; none once the driver asked to stop."""
        if self._tally.is_stopping:
            return []
        outcomes, seconds = model.run_rows([row for _, row in batch])
        rejected = [outcome for outcome in outcomes if isinstance(outcome, RejectedRow)]
        self._tally.busy(self._stage.name, seconds)
        self._tally.rows(len(outcomes) - len(rejected), rejected)
        return [(key, outcome) for (key, _), outcome in zip(batch, outcomes, strict=True)]

    def get_num_bytes(self, batch: Sequence[KeyedRow]) -> int:
        """Bytes of the batch's rows."""
        return sum(len(row) for _, row in batch)

    def get_metrics_namespace(self) -> str:
        """Name under which RunInference shows its own metrics."""
        return f"RunInference {self._stage.name}"

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Refuse arguments: all settings are the stage's own."""
        if inference_args:
            raise ValueError(
                f"inference_args of {type(self).__name__}: expected none, got {sorted(inference_args)}. "
                "Give settings to the stage."
            )

"""The two steps every stream of ours has in Ray Data: feeding on CPU tasks, the model in a pool of actors."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.engines.ray_data.model_shipping import ShippedModel
from pipelines.engines.ray_data.placement import Placement
from pipelines.engines.ray_data.workers import RUN_COLUMNS, ModelWorker, feed
from pipelines.errors import PipelineError
from pipelines.stages.stage import Stage
from spae_core.errors import ModelError

if TYPE_CHECKING:
    from ray.data import Dataset

#: About how many rows go through the tasks together: enough to make up for Ray's few milliseconds a task, few enough
#: that a small corpus still keeps several workers busy. Always whole batches of the model.
_ROWS_PER_BLOCK = 32

#: Blocks an actor is handed ahead, so that it need not wait for the network: one at work, one at hand.
_BLOCKS_PER_ACTOR = 2

#: What Ray adds to the message of an error on a worker, about settings of its own.
_RAYS_ADVICE = "\nFailed to apply UDF transform after"

#: Seconds without a single finished block after which a stream is ended: Ray repeats what a dead worker did without
#: limit, and a picture that kills the model's own process would be tried for ever.
_MOST_SECONDS_WITHOUT_PROGRESS = 1800


def apply_stages(
    rows: "Dataset",
    *,
    feeding_stages: Sequence[Stage],
    model: ShippedModel,
    placement: Placement,
    carried: Sequence[str] = RUN_COLUMNS,
) -> "Dataset":
    """Add feeding and model to a stream of rows with `sample_id` and `uri`.

    Args:
        rows: The stream.
        feeding_stages: Stages of the CPU tasks.
        model: Stage of the actors.
        placement: What each reserves.
        carried: Columns that go past all stages.
    """
    from ray.data import ActorPoolStrategy

    batch_size = model.stage.resources.batch_size
    rows_per_block = batch_size * -(-_ROWS_PER_BLOCK // batch_size)
    fed = rows.repartition(target_num_rows_per_block=rows_per_block).map_batches(
        feed,  # type: ignore[arg-type]
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"stages": tuple(feeding_stages), "carried": tuple(carried)},
        num_cpus=placement.decode_cpus,
    )
    return fed.map_batches(
        ModelWorker,
        batch_size=rows_per_block,
        batch_format="pyarrow",
        fn_constructor_args=(model, tuple(carried)),
        num_cpus=placement.actor_cpus,
        num_gpus=placement.actor_gpus or None,
        compute=ActorPoolStrategy(
            min_size=placement.min_actors,
            max_size=placement.max_actors,
            max_tasks_in_flight_per_actor=_BLOCKS_PER_ACTOR,
        ),
    )


def quieten(dataset: "Dataset", *, max_bytes_in_flight: int | None = None) -> None:
    """Set how a stream of ours runs: without Ray's own progress bars, bounded in bytes, free in its order."""
    from ray.data import ExecutionResources

    context = dataset.context
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # Ray's own wrapper would not bring the cause along.
    context.execution_no_progress_timeout_s = _MOST_SECONDS_WITHOUT_PROGRESS
    context.execution_options.preserve_order = False
    if max_bytes_in_flight is not None:
        context.execution_options.resource_limits = ExecutionResources(object_store_memory=max_bytes_in_flight)
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def user_error(error: BaseException) -> PipelineError | ModelError | None:
    """The error of ours that a worker raised and Ray wrapped, if it is one; with our message alone."""
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        inner = ahead.pop()
        if inner is None or id(inner) in seen:
            continue
        seen.add(id(inner))
        # Ray's wrapper is of our class too, with a traceback for a message: what it wraps comes first.
        wrapped = getattr(inner, "cause", None)
        for candidate in (wrapped, inner):
            if isinstance(candidate, PipelineError | ModelError):
                return type(candidate)(str(candidate).partition(_RAYS_ADVICE)[0])
        ahead += [inner.__cause__, inner.__context__, wrapped]
    return None

"""Word pyramids for a Ray dataset of your own: no plan and no files, your rows with tokens beside them."""

from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.engines.ray_data.model_shipping import ship_model
from pipelines.engines.ray_data.options import RayOptions
from pipelines.engines.ray_data.placement import place
from pipelines.engines.ray_data.rows import REJECTION
from pipelines.engines.ray_data.session import cluster_size
from pipelines.engines.ray_data.streams import apply_stages
from pipelines.errors import UsageError
from pipelines.stages.decode_images import DecodeImages
from pipelines.stages.supervised import Supervised
from pipelines.stages.tokenize_images import TokenizeImages

if TYPE_CHECKING:
    from ray.data import Dataset

#: Columns of the stages on their way; they end before the user sees the rows.
_SAMPLE_ID, _URI, _BYTES = "sample_id", "uri", "bytes"

#: A user's own columns travel under this prefix, out of the way of all names of ours.
_OWN = "_own_"


def tokenize_dataset(
    dataset: "Dataset",
    *,
    model: str = "spae-smol-128",
    image_column: str = "bytes",
    num_layers: int | None = None,
    batch_size: int = 8,
    device: str = "cpu",
    gpus_per_actor: float = 1.0,
    options: RayOptions | None = None,
) -> "Dataset":
    """Add the word pyramid of a picture to each row of a dataset; lazily, as Ray's own transforms do.

    Args:
        dataset: Rows with encoded pictures (JPEG, PNG, …).
        model: Name of a model that comes along, or a folder; its files are sent to the workers.
        image_column: Column of binary values with the pictures; it ends here.
        num_layers: Layers to give, coarse to fine. Default: all of the model.
        batch_size: Pictures the model sees at once, >= 1.
        device: `cpu` or `cuda`.
        gpus_per_actor: Share of a GPU of each copy of the model, in (0, 1]; for `cuda` only.
        options: Bounds of the pool of copies. The cluster is the one this process is connected to.

    Returns:
        The rows, in no certain order: their other columns, then `content_sha256`, `width_px`, `height_px`,
        `tokens_0` …, and `rejected_stage`, `rejected_class`, `rejected_message`, which are null for good pictures. A
        picture that cannot be read keeps its row, with nulls in place of tokens.

    Raises:
        UsageError: If there is no such column, or the cluster lacks the GPUs.
        ModelError: If the model is unknown or damaged.
    """
    from spae_core.tokenizer import SpaeTokenizer

    names = dataset.schema().names
    tokenizer = SpaeTokenizer.from_pretrained(model)
    most_layers = len(tokenizer.config.pyramid.layer_grids)
    decode = DecodeImages(image_size_px=tokenizer.config.image_size_px)
    tokenize = TokenizeImages(
        model=model,
        model_sha256=tokenizer.model_sha256,
        num_layers=num_layers or most_layers,
        batch_size=batch_size,
        device=device,
        gpu_fraction=gpus_per_actor if device.startswith("cuda") else 0.0,
    )
    if tokenize.num_layers > most_layers:
        raise UsageError(
            f"num_layers: expected 1 to {most_layers} for {model}, got {num_layers}. Leave it out for all layers."
        )
    if image_column not in names:
        raise UsageError(
            f"image column: expected one of the dataset's columns ({', '.join(names)}), got {image_column!r}. "
            "Name the one with the encoded pictures."
        )
    own = [name for name in names if name != image_column]
    given = ["content_sha256", "width_px", "height_px", *tokenize.output_schema.names, *REJECTION]
    clash = sorted({*own} & {*given})
    if clash:
        raise UsageError(
            f"columns of the dataset: expected none of the names given here, got {', '.join(clash)}. "
            "Rename them with Dataset.rename_columns."
        )
    carried = [_OWN + name for name in own]
    keyed = dataset.map_batches(
        _with_keys,  # type: ignore[arg-type]
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"image_column": image_column},
    )
    placement = place(cluster_size(), tokenize.resources, decode.resources.num_cpus, options or RayOptions())
    rows = apply_stages(
        keyed,
        feeding_stages=(Supervised(stage=decode),),
        model=ship_model(tokenize),
        placement=placement,
        carried=carried,
    )
    return rows.map_batches(
        _as_the_user_sees_it,  # type: ignore[arg-type]
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"own": own, "given": given},
    )


def _with_keys(rows: pa.Table, *, image_column: str) -> pa.Table:
    """Rows as the stages take them. A key need only differ within a block, and blocks are joined: it is random."""
    import uuid

    keys = [uuid.uuid4().hex for _ in range(rows.num_rows)]
    columns = {_OWN + name: rows[name] for name in rows.schema.names if name != image_column}
    columns[_SAMPLE_ID] = pa.array(keys, pa.string())
    columns[_URI] = rows["uri"].cast(pa.string()) if "uri" in rows.schema.names else pa.array(keys, pa.string())
    columns[_BYTES] = rows[image_column].cast(pa.large_binary())
    return pa.table(columns)


def _as_the_user_sees_it(rows: pa.Table, *, own: list[str], given: list[str]) -> pa.Table:
    columns = {name: rows[_OWN + name] for name in own}
    return pa.table({**columns, **{name: rows[name] for name in given}})

"""Resolve a tokenizing command to what determines its bytes: the config, the codebook, the decoding stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import UsageError
from pipelines.provenance import git_commit, installed_versions
from pipelines.runs.plan import PlanSummary
from pipelines.runs.run_config import RunConfig, RunSettings
from pipelines.stages.decode_images import DecodeImages
from schemas.codebook_table import codebook_table


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDescription:
    """A command, resolved.

    Attributes:
        config: Content of the run's `config.json`.
        codebook: Content of its `codebook.parquet`.
        decode: The stage that makes the model's input of encoded pictures.
    """

    config: RunConfig
    codebook: pa.Table
    decode: DecodeImages


def describe_run(
    plan: PlanSummary,
    *,
    model: str,
    num_layers: int | None,
    batch_size: int,
    device: str,
    command: Mapping[str, Any],
) -> RunDescription:
    """Load the model once, on the CPU, for the hashes and shapes a run's config needs.

    Args:
        plan: The plan of the inputs.
        model: Name or folder of the model.
        num_layers: Layers to write. Default: all of the model.
        batch_size: Pictures the model sees at once.
        device: `cpu` or `cuda`.
        command: The command's arguments, to keep in the config.

    Raises:
        ModelError: If the model is unknown or damaged.
        UsageError: If it has fewer layers than wanted.
    """
    from spae_core.tokenizer import SpaeTokenizer

    tokenizer = SpaeTokenizer.from_pretrained(model)
    layer_grids = tuple((h, w) for h, w in tokenizer.config.pyramid.layer_grids)
    if num_layers is not None and num_layers > len(layer_grids):
        raise UsageError(
            f"--num-layers: expected 1 to {len(layer_grids)} for {model}, got {num_layers}. "
            "Leave it out for all layers."
        )
    decode = DecodeImages(image_size_px=tokenizer.config.image_size_px)
    settings = RunSettings(
        model_sha256=tokenizer.model_sha256,
        codebook_sha256=tokenizer.codebook_sha256,
        codebook_size=tokenizer.codebook.codebook_size,
        layer_grids=layer_grids[:num_layers],
        image_size_px=tokenizer.config.image_size_px,
        preprocessing=decode.preprocessing,
        decoder=decode.decoder,
        batch_size=batch_size,
        device=device,
        num_shards=plan.num_shards,
        num_inputs=plan.num_inputs,
        plan_sha256=plan.sha256,
    )
    config = RunConfig(
        settings=settings,
        model=str(Path(model).absolute()) if Path(model).is_dir() else model,
        command=command,
        versions=installed_versions(),
        git_commit=git_commit(),
    )
    codebook = codebook_table(
        words=tokenizer.codebook.words,
        token_ids=tokenizer.codebook.token_ids,
        codebook_sha256=tokenizer.codebook_sha256,
        source=tokenizer.codebook.source,
    )
    return RunDescription(config=config, codebook=codebook, decode=decode)

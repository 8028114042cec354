"""The report of a run from its files to the page: read, decode, render."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipelines.evaluation.report_data import RunData
from pipelines.evaluation.report_page import render_page
from pipelines.evaluation.report_pictures import (
    Decoded,
    choose_prefixes,
    decode_samples,
    load_model_of,
    read_original,
)
from pipelines.evaluation.report_reading import read_run
from pipelines.evaluation.report_view import SamplePictures
from spae_core.errors import ModelError
from spae_core.tokenizer import SpaeTokenizer

logger = logging.getLogger(__name__)


def build_report(
    location: str,
    *,
    num_samples: int = 24,
    layers: Sequence[int] = (),
    sample_ids: Sequence[str] = (),
    model: str | None = None,
) -> str:
    """Make the page of a run.

    Args:
        location: Folder or url of the run.
        num_samples: Pictures to show, >= 0.
        layers: Numbers of layers to decode from. Default: the last two with which every cell has a word.
        sample_ids: Show these instead of a draw.
        model: Name or folder of the model, where it is not the one the run recorded.

    Returns:
        HTML. A run whose recorded model is gone still gives a page, without decoded pictures, that says why;
        one that is named with `model` must be right.

    Raises:
        UsageError: If there is no run, or it has no such layer or sample.
        BadDataError: If the run's files do not belong together.
        ModelError: If `model` is given and cannot be loaded, or is not the one that wrote the run.
    """
    run = read_run(location, num_samples=num_samples, sample_ids=sample_ids)
    prefixes = choose_prefixes(run.grids, layers)
    if not run.samples:
        return render_page(run, [])
    notices = []
    tokenizer = None
    try:
        tokenizer = load_model_of(run.config, model)
    except ModelError as error:
        if model is not None:
            raise
        logger.warning("No pictures decoded: %s", error)
        notices.append(f"No picture could be decoded from its words. {error}")
    pictures = _pictures(run, tokenizer, prefixes)
    num_absent = sum(sample.original.pixels is None for sample in pictures)
    if num_absent:
        notices.append(f"{num_absent} of the {len(pictures)} originals shown here could not be read again.")
    ranked = tokenizer.config.ranked_words if tokenizer is not None else None
    # With a local weight each word stands for its region, as in the layers below.
    num_ranked_layers = ranked.num_layers if ranked is not None and not ranked.local_weight else 0
    return render_page(run, pictures, num_ranked_layers=num_ranked_layers, notices=notices)


def _pictures(run: RunData, tokenizer: SpaeTokenizer | None, prefixes: Sequence[int]) -> list[SamplePictures]:
    originals = [read_original(row, run.config.settings.image_size_px) for row in run.samples]
    decoded: Sequence[tuple[Decoded, ...]] = [()] * len(originals)
    if tokenizer is not None:
        decoded = decode_samples(tokenizer, run.samples, originals, run.grids, prefixes)
    triples = zip(run.samples, originals, decoded, strict=True)
    return [SamplePictures(row=row, original=original, decoded=pictures) for row, original, pictures in triples]

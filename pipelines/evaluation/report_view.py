"""What the page of a report shows, as plain values for its template and its script.

Legend: h×w grid of a layer in cells, V codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pipelines.evaluation.report_data import RunData, SampleRow
from pipelines.evaluation.report_pictures import (
    Decoded,
    Original,
    Pixels,
    cell_colours,
    data_uri,
    thumbnail_uri,
)

_MOST_CELLS_OF_A_PANEL = 16  # layers with more go into the fine grid
_LARGEST_TEXT = {1: "3.6rem", 2: "1.8rem"}  # by columns of a panel
_LARGEST_TEXT_OF_OTHERS = "1.1rem"


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePictures:
    """What was made of one sample.

    Attributes:
        row: The sample.
        original: Its original, or why there is none.
        decoded: One entry a prefix, shortest first; empty without a model.
    """

    row: SampleRow
    original: Original
    decoded: tuple[Decoded, ...] = ()

    @property
    def best_pixels(self) -> Pixels | None:
        """The original, or else the best decoded picture, or None."""
        if self.original.pixels is not None:
            return self.original.pixels
        return self.decoded[-1].pixels if self.decoded else None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerView:
    """One layer of the pyramid.

    Attributes:
        number: From 1.
        grid: (h, w).
        first_rank: Rank of its first word in the ranked list, from 1; 0 if the layer is not ranked.
        largest_text: CSS size of its words where they have room.
    """

    number: int
    grid: tuple[int, int]
    first_rank: int
    largest_text: str

    @property
    def num_words(self) -> int:
        """Words of the layer."""
        return self.grid[0] * self.grid[1]

    @property
    def is_fine(self) -> bool:
        """Whether its words go into the fine grid."""
        return self.num_words > _MOST_CELLS_OF_A_PANEL

    @property
    def ranks(self) -> str:
        """`rank 1`, `ranks 2 to 5`, or nothing."""
        if not self.first_rank:
            return ""
        last = self.first_rank + self.num_words - 1
        return f"rank {self.first_rank}" if self.num_words == 1 else f"ranks {self.first_rank} to {last}"


def layer_views(run: RunData, num_ranked_layers: int) -> list[LayerView]:
    """The layers of a run; the first `num_ranked_layers` are one ranked list."""
    return [
        LayerView(
            number=number,
            grid=grid,
            first_rank=run.num_words(number - 1) + 1 if number <= num_ranked_layers else 0,
            largest_text=_LARGEST_TEXT.get(grid[1], _LARGEST_TEXT_OF_OTHERS),
        )
        for number, grid in enumerate(run.grids, start=1)
    ]


def facts(run: RunData, pictures: Sequence[SamplePictures]) -> list[tuple[str, str, str]]:
    """Name, value and remark of the facts at the head of the page."""
    manifest = run.manifest
    most = run.quarantine_groups[0].error_class if run.quarantine_groups else ""
    rows = [
        ("Model", short_name(run.config.model), f"{count_of(len(run.grids), 'layer')}"),
        ("Codebook", f"{run.config.settings.codebook_size:,} words", run.codebook_source),
        ("Pictures", grouped(run.num_rows), f"of {count_of(run.config.settings.num_inputs, 'input')}"),
        ("Quarantined", grouped(run.num_quarantined), f"most often {most}" if most else ""),
    ]
    if manifest is not None and manifest.num_processed:
        pace = f"slowest stage {manifest.bottleneck}" if manifest.bottleneck else ""
        rows.append(("Pictures a second", f"{manifest.images_per_second:.3g}", pace))
    if run.num_rows:
        rows.append(("Bytes a picture", grouped(round(run.num_bytes / run.num_rows)), "in the token files"))
    quality = quality_rows(run, pictures)
    if quality:
        best = quality[-1]
        samples = count_of(best["num_pictures"], "sample")
        rows.append(("PSNR", best["mean"], f"{best['label']}, {samples}"))
    return rows


def sample_view(run: RunData, layers: Sequence[LayerView], sample: SamplePictures) -> dict[str, Any]:
    """One sample with its pictures, its coarse words, and the words in its middle."""
    row, original = sample.row, sample.original.pixels
    shown = [
        {
            "label": "Original",
            "detail": f"as the model saw it, {len(original)} px" if original is not None else "",
            "absent": sample.original.absent,
            "data_uri": data_uri(original) if original is not None else None,
        }
    ]
    for decoded in sample.decoded:
        distance = "" if decoded.psnr_db is None else f", {decoded.psnr_db:.1f} dB"
        shown.append(
            {
                "label": f"From {count_of(decoded.num_layers, 'layer')}",
                "detail": f"{count_of(run.num_words(decoded.num_layers), 'word')}{distance}",
                "absent": "",
                "data_uri": data_uri(decoded.pixels),
            }
        )
    words = [[run.words[code] for code in codes] for codes in row.code_indices]
    return {
        "row": row,
        "name": short_name(row.uri),
        "words": words,
        "thumbnail": thumbnail_uri(sample.best_pixels) if sample.best_pixels is not None else None,
        "pictures": shown,
        "ladder": [_rung(layer, words[index], row.code_indices[index]) for index, layer in enumerate(layers)],
    }


def _rung(layer: LayerView, words: Sequence[str], codes: Sequence[int]) -> dict[str, Any]:
    """The word in the middle of the picture."""
    height, width = layer.grid
    cell = height // 2 * width + width // 2
    place = f"rank {layer.first_rank + cell}" if layer.first_rank else f"{height} × {width}"
    return {"text": words[cell], "code": codes[cell], "place": place, "is_ranked": layer.first_rank > 0}


def usage_rows(run: RunData) -> list[dict[str, Any]]:
    """How the codebook is used, layer by layer."""
    most = math.log(max(len(run.words), 2))
    return [
        {
            "number": number,
            "grid": f"{usage.grid[0]} × {usage.grid[1]}",
            "num_words": usage.grid[0] * usage.grid[1],
            "num_codes_used": grouped(usage.num_codes_used),
            "usage": f"{100 * usage.codebook_usage:.2g} %",
            "perplexity": _three_digits(usage.codebook_perplexity),
            "meter": round(100 * math.log(max(usage.codebook_perplexity, 1)) / most, 1),
            "top_words": [(run.words[code], f"{100 * share:.2g} %") for code, share in usage.top_codes],
        }
        for number, usage in enumerate(run.usage, start=1)
    ]


def quality_rows(run: RunData, pictures: Sequence[SamplePictures]) -> list[dict[str, Any]]:
    """PSNR over the samples that have an original, prefix by prefix."""
    by_prefix: dict[int, list[float]] = {}
    for sample in pictures:
        for decoded in sample.decoded:
            if decoded.psnr_db is not None:
                by_prefix.setdefault(decoded.num_layers, []).append(decoded.psnr_db)
    return [
        {
            "label": count_of(number, "layer"),
            "num_words": run.num_words(number),
            "mean": f"{fmean(distances):.2f} dB",
            "lowest": f"{min(distances):.2f} dB",
            "highest": f"{max(distances):.2f} dB",
            "num_pictures": len(distances),
        }
        for number, distances in sorted(by_prefix.items())
    ]


def provenance(run: RunData) -> list[tuple[str, str]]:
    """Where everything came from, in full."""
    settings = run.config.settings
    return [
        ("Run", run.location),
        ("Model", f"{run.config.model}, sha256 {settings.model_sha256}"),
        ("Codebook", f"{run.codebook_source or 'source unknown'}, sha256 {settings.codebook_sha256}"),
        ("Preprocessing", settings.preprocessing),
        ("Decoded with", settings.decoder),
        ("Plan", f"{count_of(settings.num_inputs, 'input')}, sha256 {settings.plan_sha256}"),
        ("Code", f"commit {run.config.git_commit}" if run.config.git_commit else "installed"),
    ]


def pyramids(run: RunData, layers: Sequence[LayerView], pictures: Sequence[SamplePictures]) -> dict[str, Any]:
    """What the script needs; words once each, cells as positions in that list."""
    used = sorted({code for sample in pictures for codes in sample.row.code_indices for code in codes})
    position = {code: index for index, code in enumerate(used)}
    grid = layers[-1].grid
    return {
        "layers": [{"grid": layer.grid, "is_fine": layer.is_fine, "first_rank": layer.first_rank} for layer in layers],
        # The first layer with a word for every cell: with it, the words follow the pointer closely.
        "first_layer": [layer.grid for layer in layers].index(grid),
        "words": [[run.words[code], code, run.token_ids[code]] for code in used],
        "samples": [
            {
                "name": short_name(sample.row.uri),
                "layers": [[position[code] for code in codes] for codes in sample.row.code_indices],
                "colours": cell_colours(sample.best_pixels, grid) if sample.best_pixels is not None else None,
            }
            for sample in pictures
        ],
    }


def short_name(location: str) -> str:
    """The last part of a path or url."""
    return location.rstrip("/").rpartition("/")[2] or location


def grouped(number: int) -> str:
    """12345 as 12,345."""
    return f"{number:,}"


def count_of(number: int, noun: str) -> str:
    """2 and "word" as "2 words"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _three_digits(number: float) -> str:
    return grouped(round(number)) if number >= 100 else f"{number:.1f}"

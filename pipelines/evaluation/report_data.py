"""What a report knows about a run: its facts, its words counted, and a few samples in full.

Legend: h×w grid of a layer in cells, V codebook size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.runs.run_config import RunConfig
from schemas.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerUsage:
    """The codes of one layer over the whole run.

    Attributes:
        grid: (h, w) of the layer.
        num_codes_used: Different codes that occur.
        codebook_usage: num_codes_used / V, in [0, 1].
        codebook_perplexity: In [1, V]; 0 without tokens.
        top_codes: (code_index, share of the layer's tokens), most frequent first, ties to the lowest index.
    """

    grid: tuple[int, int]
    num_codes_used: int
    codebook_usage: float
    codebook_perplexity: float
    top_codes: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantineGroup:
    """Quarantined rows of one stage and error class, with one of them as an example."""

    stage: str
    error_class: str
    count: int
    example_uri: str
    example_message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """One picture of the dataset.

    Attributes:
        sample_id: Its id in the plan.
        uri: Where the original was.
        content_sha256: Hash of the original's bytes.
        width_px: Width of the original.
        height_px: Height of the original.
        code_indices: Codes of each layer in raster order, coarse layer first.
        shard: Shard it is in.
        size_bytes: Size of the original where `record` is one; else unknown.
        record: Where the original lies inside its container (`schemas.plan.RECORD_TYPE`), or None.
    """

    sample_id: str
    uri: str
    content_sha256: str
    width_px: int
    height_px: int
    code_indices: tuple[tuple[int, ...], ...]
    shard: int = 0
    size_bytes: int | None = None
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunData:
    """A run as its files tell it.

    Attributes:
        location: Folder or url of the run.
        config: What the run was started with.
        manifest: The manifest, or None while the run is not finished.
        is_finished: Whether `_SUCCESS` is there.
        num_rows: Pictures in `data/`.
        num_bytes: Size of the files in `data/`.
        num_quarantined: Rows in `quarantine/`.
        quarantine_groups: Reasons, most frequent first.
        words: Text of every code_index, V of them.
        token_ids: The LLM's id of every code_index; -1 if unknown.
        codebook_source: Where the words come from, or "" if unknown.
        usage: One entry a layer written, coarse first.
        samples: The picked rows, in the order of their uris.
    """

    location: str
    config: RunConfig
    manifest: Manifest | None
    is_finished: bool
    num_rows: int
    num_bytes: int
    num_quarantined: int
    quarantine_groups: tuple[QuarantineGroup, ...]
    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    codebook_source: str
    usage: tuple[LayerUsage, ...]
    samples: tuple[SampleRow, ...]

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of each layer written."""
        return self.config.settings.layer_grids

    def num_words(self, num_layers: int | None = None) -> int:
        """Words a picture in its first layers; in all of them by default."""
        return sum(height * width for height, width in self.grids[:num_layers])

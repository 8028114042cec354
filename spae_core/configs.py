"""Every number that defines a model; `presets` names sets of them.

Source: arXiv 2306.17842, implementation details. What the paper does not have is marked "not in the paper" and is
off in the paper's preset.

Letters: C embedding_dim, F base_channels, H×W latent grid, D number of layers, V codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, log2
from typing import ClassVar, Literal

from spae_core.errors import ModelError

Grid = tuple[int, int]
REFUSE_UNKNOWN: dict[str, str] = {"extra": "forbid"}
"""What reading a config from JSON does with a setting of no known name; a class names it `__pydantic_config__`."""
IMAGE_LAYER_GRIDS: tuple[Grid, ...] = ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16))


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """One half of the autoencoder, read from the pixels inwards.

    Attributes:
        base_channels: F, channels at the finest scale.
        channel_multipliers: Channels of each scale as multiples of F, fine to coarse. Scales are a factor 2 apart.
        num_residual_blocks: Residual blocks a scale.
        num_middle_blocks: Residual blocks after (encoder) or before (decoder) the scales.
        patch_size_px: Side of the pixel square the first convolution takes in at once; 1 is the paper's 3×3 stem.
            Not in the paper for values over 1: a cheaper network for CPUs.
        norm_groups: Groups of each GroupNorm.
        linear_path: Add a linear map between the pixels of a cell and its latent, beside the network, which then only
            learns what a linear map misses. With a matched start it begins as principal components. Not in the paper;
            after the shortcuts of DC-AE (arXiv 2410.10733).
    """

    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)
    num_residual_blocks: int = 2
    num_middle_blocks: int = 2
    patch_size_px: int = 1
    norm_groups: int = 32
    linear_path: bool = False
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN

    def __post_init__(self) -> None:
        """Refuse widths that GroupNorm cannot split and patches that pixel shuffling cannot undo."""
        if self.base_channels % self.norm_groups:
            raise ModelError(
                f"base_channels: expected a multiple of norm_groups ({self.norm_groups}), "
                f"got {self.base_channels}. Change one of the two."
            )
        if self.patch_size_px < 1 or log2(self.patch_size_px) % 1:
            raise ModelError(f"patch_size_px: expected a power of 2, got {self.patch_size_px}. Use 1, 2, 4 or 8.")

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along one axis."""
        return self.patch_size_px << (len(self.channel_multipliers) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PyramidConfig:
    """Which latent cells carry a token in which layer.

    Attributes:
        layer_grids: (h, w) of each layer, coarse to fine; the last is the latent grid H×W.
    """

    layer_grids: tuple[Grid, ...] = IMAGE_LAYER_GRIDS
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN

    def __post_init__(self) -> None:
        """Refuse pyramids that shrink, have empty layers, or layers that do not divide the latent grid."""
        if not self.layer_grids:
            raise ModelError("layer_grids: expected at least one layer, got none. Give (h, w) for every layer.")
        height, width = self.layer_grids[-1]
        previous = (1, 1)
        for grid in self.layer_grids:
            grows = grid[0] >= previous[0] and grid[1] >= previous[1]  # from (1, 1), so no layer is empty
            if not (grows and height % grid[0] == 0 and width % grid[1] == 0):
                raise ModelError(
                    f"layer_grids: expected monotone layers that divide the latent grid {height}×{width}, "
                    f"got {self.layer_grids}. Layer {grid} does not fit."
                )
            previous = grid

    @property
    def num_layers(self) -> int:
        """D, the number of layers."""
        return len(self.layer_grids)

    @property
    def grid(self) -> Grid:
        """(H, W) of the latent grid."""
        return self.layer_grids[-1]

    @property
    def cumulative_tokens(self) -> tuple[int, ...]:
        """Tokens of an image when the first 1, 2, … D layers are used."""
        totals, total = [], 0
        for height, width in self.layer_grids:
            total += height * width
            totals.append(total)
        return tuple(totals)

    @property
    def first_decodable_layer(self) -> int:
        """The number of layers from which on every cell owns a token."""
        return self.layer_grids.index(self.grid) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizerConfig:
    """How latents become codebook entries.

    Attributes:
        kind: `saq`, streaming average quantization, or `residual`, the paper's baseline.
        commitment_weight: β of the commitment loss.
        commitment_reduction: How ‖·‖² is read over the C channels. The paper's `sum` crushes long codes into one;
            `mean` does not.
        trainable_projection: Learn the map from the LLM's rows to the lookup space (VQGAN-LC). Not in the paper.
        axis_decay: Axis i = 1..C of the lookup space is scaled by i^−axis_decay. A fixed codebook cannot learn which
            directions matter to pictures, so it gets the falling spectrum of natural image patches (about 1), and the
            nearest entry spends its bits where the variance is. 0 leaves the axes alike, as in the paper.
    """

    kind: Literal["saq", "residual"] = "saq"
    commitment_weight: float = 0.33
    commitment_reduction: Literal["sum", "mean"] = "sum"
    trainable_projection: bool = False
    axis_decay: float = 0.0
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN

    def __post_init__(self) -> None:
        """Refuse names of no known way, and spectra that rise."""
        for name, value, known in (
            ("kind", self.kind, ("saq", "residual")),
            ("commitment_reduction", self.commitment_reduction, ("sum", "mean")),
        ):
            if value not in known:
                raise ModelError(f"{name}: expected '{known[0]}' or '{known[1]}', got '{value}'. Use one of the two.")
        if not 0 <= self.axis_decay < inf:
            raise ModelError(
                f"axis_decay: expected a number of at least 0, got {self.axis_decay}. 0 leaves the axes alike."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedWordsConfig:
    """A semantic head that names the picture in the top layers. Not in the paper.

    Attributes:
        num_layers: Layers whose words the head chooses, all different, layer by layer in raster order.
        local_weight: How much the region under a cell counts against the whole picture, 0 to 1. At 0 the words are one
            list of the picture's nearest; above it a word stands where its thing is.
        text_dim: Width of the text vectors it reads.
        hidden_dim: Width of its two hidden layers.
        num_classes: Classes of the frozen classifier whose probabilities weight the class text vectors.
    """

    num_layers: int = 3
    local_weight: float = 0.0
    text_dim: int = 384
    hidden_dim: int = 768
    num_classes: int = 1000
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN

    def __post_init__(self) -> None:
        """Refuse a head that names nothing or has no width."""
        smallest = min(self.num_layers, self.text_dim, self.hidden_dim, self.num_classes)
        if smallest < 1:
            raise ModelError(
                f"ranked_words: expected num_layers, widths and classes of at least 1, got {self}. "
                "Set ranked_words to None for a model without a semantic head."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaeConfig:
    """A whole model.

    Attributes:
        name: Name of the preset it came from; recorded in every dataset.
        image_size_px: Side of the square picture.
        embedding_dim: C, width of the latents and of the lookup space.
        encoder: Pixels to latents.
        decoder: Latents to pixels.
        pyramid: Layers of tokens.
        quantizer: Latents to tokens.
        ownership_embedding: Tell the networks which layer first owns each cell. Not in the paper.
        ranked_words: Semantic head for the top layers, or None as in the paper.
    """

    name: str
    image_size_px: int = 128
    embedding_dim: int = 1536
    encoder: NetworkConfig = field(default_factory=NetworkConfig)
    decoder: NetworkConfig = field(default_factory=NetworkConfig)
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    ownership_embedding: bool = False
    ranked_words: RankedWordsConfig | None = None
    __pydantic_config__: ClassVar[dict[str, str]] = REFUSE_UNKNOWN

    def __post_init__(self) -> None:
        """Refuse networks whose stride misses the latent grid, and a head that names more layers than there are."""
        if self.ranked_words is not None and self.ranked_words.num_layers > self.pyramid.num_layers:
            raise ModelError(
                f"ranked_words: expected num_layers of at most {self.pyramid.num_layers}, "
                f"got {self.ranked_words.num_layers}. The pyramid has no more layers."
            )
        for half, network in (("encoder", self.encoder), ("decoder", self.decoder)):
            side = self.image_size_px / network.downsampling
            if (side, side) != self.pyramid.grid:
                raise ModelError(
                    f"{half}: expected {self.image_size_px} px to meet the latent grid {self.pyramid.grid}, "
                    f"got {side:g}×{side:g}. Change channel_multipliers or patch_size_px."
                )

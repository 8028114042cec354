"""Models by name: the paper's, the one in this repository, a baseline, and one for tests.

Source: arXiv 2306.17842, implementation details.
"""

from __future__ import annotations

from collections.abc import Callable

from spae_core.configs import (
    IMAGE_LAYER_GRIDS,
    NetworkConfig,
    PyramidConfig,
    QuantizerConfig,
    RankedWordsConfig,
    SpaeConfig,
)
from spae_core.errors import ModelError


def spae_b_128() -> SpaeConfig:
    """The paper's image model: 59.4M parameters in encoder and decoder, 597 tokens."""
    return SpaeConfig(name="spae-b-128")


def spae_8_128() -> SpaeConfig:
    """The paper's SPAE-8: two more 16×16 layers, 1109 tokens."""
    return SpaeConfig(name="spae-8-128", pyramid=PyramidConfig(layer_grids=(*IMAGE_LAYER_GRIDS, (16, 16), (16, 16))))


def spae_smol_128() -> SpaeConfig:
    """The model in this repository: SmolLM2's words, a 32-d lookup space, small enough to train on a CPU."""
    return SpaeConfig(
        name="spae-smol-128",
        embedding_dim=32,
        encoder=NetworkConfig(
            base_channels=128,
            channel_multipliers=(1, 2),
            num_residual_blocks=1,
            num_middle_blocks=1,
            patch_size_px=4,
            linear_path=True,
        ),
        decoder=NetworkConfig(
            base_channels=64,
            channel_multipliers=(1, 2, 4),
            num_middle_blocks=1,
            patch_size_px=2,
            linear_path=True,
        ),
        quantizer=QuantizerConfig(commitment_weight=0.5, commitment_reduction="mean", axis_decay=1.0),
        ownership_embedding=True,
        ranked_words=RankedWordsConfig(local_weight=0.7),
    )


def spae_lqae_128() -> SpaeConfig:
    """A baseline in the manner of LQAE: `spae-smol-128` without pyramid, averages or meaning on top, 256 tokens.

    One 16×16 layer over a frozen language codebook whose rows have norm 1, as `spae codebook` makes them. Against such
    rows the nearest entry by squared L2 is the one of largest cosine, whatever the latent's norm. LQAE's BERT, which
    is to make sense of the tokens, and its masking have no part in reconstruction and are left out.

    Source: Liu et al. 2023, "Language Quantized AutoEncoders" (arXiv 2302.00902).
    """
    smol = spae_smol_128()
    return SpaeConfig(
        name="spae-lqae-128",
        embedding_dim=smol.embedding_dim,
        encoder=smol.encoder,
        decoder=smol.decoder,
        pyramid=PyramidConfig(layer_grids=((16, 16),)),
        quantizer=QuantizerConfig(commitment_weight=0.1, commitment_reduction="mean"),
    )


def tiny() -> SpaeConfig:
    """A model for tests: 32×32 px, 4 layers, milliseconds on a CPU."""
    network = NetworkConfig(
        base_channels=8,
        channel_multipliers=(1, 2),
        num_residual_blocks=1,
        num_middle_blocks=1,
        patch_size_px=4,
        norm_groups=4,
    )
    return SpaeConfig(
        name="tiny",
        image_size_px=32,
        embedding_dim=8,
        encoder=network,
        decoder=network,
        pyramid=PyramidConfig(layer_grids=((1, 1), (2, 2), (4, 4), (4, 4))),
    )


PRESETS: dict[str, Callable[[], SpaeConfig]] = {
    "spae-b-128": spae_b_128,
    "spae-8-128": spae_8_128,
    "spae-smol-128": spae_smol_128,
    "spae-lqae-128": spae_lqae_128,
    "tiny": tiny,
}


def preset(name: str) -> SpaeConfig:
    """Build the preset called `name`.

    Raises:
        ModelError: If there is none of that name; the message lists all.
    """
    if name not in PRESETS:
        raise ModelError(f"preset: expected one of {', '.join(PRESETS)}, got '{name}'. See docs/concepts.md.")
    return PRESETS[name]()

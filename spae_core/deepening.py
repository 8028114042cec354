"""Makes a trained model deeper without changing what it does: new residual blocks that begin as the identity.

A longer training of the same networks gives less and less; blocks at the latent grid see the most for the least
arithmetic. Not in the paper; after Net2DeeperNet (Chen et al. 2016, arXiv 1511.05641).
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from spae_core.configs import NetworkConfig
from spae_core.errors import ModelError
from spae_core.layers import ResidualBlock
from spae_core.tokenizer import SpaeTokenizer


def deepen(model: SpaeTokenizer, *, encoder_blocks: int, decoder_blocks: int) -> SpaeTokenizer:
    """Add middle blocks after those that are there.

    Args:
        model: Left as it is.
        encoder_blocks: Blocks to add to the encoder, at least 0.
        decoder_blocks: Blocks to add to the decoder, at least 0.

    Returns:
        A model of its own with the same codebook, weights and results; the new blocks' last convolutions are zero.

    Raises:
        ModelError: If a number is negative.
    """
    if min(encoder_blocks, decoder_blocks) < 0:
        raise ModelError(
            f"middle blocks to add: expected 0 or more for each network, got {encoder_blocks} and {decoder_blocks}. "
            "A model can only be made deeper."
        )
    config = replace(
        model.config,
        encoder=_deeper(model.config.encoder, encoder_blocks),
        decoder=_deeper(model.config.decoder, decoder_blocks),
    )
    deeper = SpaeTokenizer(config, model.codebook)
    deeper.load_state_dict(model.state_dict(), strict=False)  # what is absent is in the new blocks alone
    for network, count in ((deeper.encoder, encoder_blocks), (deeper.decoder, decoder_blocks)):
        for block in list(network.middle)[len(network.middle) - count :]:
            assert isinstance(block, ResidualBlock)
            nn.init.zeros_(block.conv2.weight)
    return deeper


def _deeper(network: NetworkConfig, num_blocks: int) -> NetworkConfig:
    return replace(network, num_middle_blocks=network.num_middle_blocks + num_blocks)

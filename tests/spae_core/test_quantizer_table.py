"""The quantizer's table on a falling spectrum, and what it refuses to look up or to build."""

import pytest
import torch
from torch import Tensor

from spae_core.configs import PyramidConfig, QuantizerConfig
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.quantizer import StreamingAverageQuantizer, axis_scales


def codebook_of(embeddings: Tensor) -> LexicalCodebook:
    size = len(embeddings)
    return LexicalCodebook(
        embeddings=embeddings, token_ids=tuple(range(size)), words=tuple(map(str, range(size))), source="made up"
    )


def quantizer_of(
    grids: tuple[tuple[int, int], ...], embeddings: Tensor, **options: object
) -> StreamingAverageQuantizer:
    config, pyramid = QuantizerConfig(**options), PyramidConfig(layer_grids=grids)
    return StreamingAverageQuantizer(config, pyramid, codebook_of(embeddings), embeddings.shape[1])


@pytest.mark.parametrize("index", [-1, 8])
def test_tokens_that_no_codebook_of_this_size_has_are_refused(index):
    quantizer = quantizer_of(((1, 1), (2, 2)), torch.eye(8)[:, :3])
    layers = (torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor([[[0, 1], [index, 7]]]))
    with pytest.raises(ModelError, match=r"tokens of layer 2: expected 0 to 7, got (-1 to 7|0 to 8)"):
        quantizer.lookup(layers)
    assert quantizer.lookup(layers, num_layers=1).shape == (1, 3, 2, 2)


def test_a_projection_cannot_be_wider_than_the_codebook():
    codebook, pyramid = codebook_of(torch.eye(8)[:, :3]), PyramidConfig(layer_grids=((1, 1), (2, 2)))
    config = QuantizerConfig(trainable_projection=True)
    assert StreamingAverageQuantizer(config, pyramid, codebook, 2).table().shape == (8, 2)
    with pytest.raises(ModelError, match=r"embedding_dim: expected at most 3 .*\(8, 3\), got 4"):
        StreamingAverageQuantizer(config, pyramid, codebook, 4)


def test_axes_fall_as_a_power_of_their_number_with_a_mean_square_of_1():
    scales = axis_scales(4, 1.0)
    # 1, 1/2, 1/3, 1/4 over the root of (1 + 1/4 + 1/9 + 1/16) / 4 = 205/576.
    torch.testing.assert_close(scales, torch.tensor([1, 1 / 2, 1 / 3, 1 / 4]) / (205 / 576) ** 0.5)
    torch.testing.assert_close(axis_scales(7, 0.3).square().mean(), torch.tensor(1.0))
    rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).half().float()
    assert torch.equal(quantizer_of(((2, 2),), rows).table(), rows)
    assert torch.equal(quantizer_of(((2, 2),), rows, axis_decay=1.0).table(), rows * scales)


def test_the_nearest_entry_is_searched_among_the_scaled_ones():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    latent = torch.tensor([0.5, 0.6])[None, :, None, None]
    first, second = axis_scales(2, 2.0).tolist()
    assert (first - 0.5) ** 2 + 0.6**2 > 0.5**2 + (second - 0.6) ** 2
    chosen = [
        quantizer_of(((1, 1),), rows, axis_decay=decay).quantize(latent).code_indices[0].item() for decay in (0.0, 2.0)
    ]
    assert chosen == [1, 1]
    wide = torch.tensor([0.9, 0.95])[None, :, None, None]
    chosen = [
        quantizer_of(((1, 1),), rows, axis_decay=decay).quantize(wide).code_indices[0].item() for decay in (0.0, 2.0)
    ]
    assert chosen == [1, 0]


def test_a_projection_starts_with_the_same_spectrum():
    rows = torch.randn(64, 6, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 7)
    codebook, pyramid = codebook_of(rows), PyramidConfig(layer_grids=((2, 2),))
    config = QuantizerConfig(trainable_projection=True, axis_decay=1.0)
    quantizer = StreamingAverageQuantizer(config, pyramid, codebook, 4)
    with torch.no_grad():
        projected = quantizer.projection(codebook.embeddings - codebook.embeddings.mean(dim=0))
    deviations = projected.square().mean(dim=0).sqrt()
    torch.testing.assert_close(deviations, axis_scales(4, 1.0), atol=1e-4, rtol=0)

"""Token pyramids on a codebook of four words whose numbers can be checked by eye."""

import pytest
import torch

from spae_core.configs import PyramidConfig, QuantizerConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.quantizer import StreamingAverageQuantizer
from spae_core.structs import TokenPyramid

# Four words on the axes of a plane, checked by eye. Layer 1 owns the lower right cell, layer 2 all four.
AXES = LexicalCodebook(
    embeddings=torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]),
    token_ids=(10, 11, 12, 13),
    words=("left", "right", "up", "down"),
    source="by hand",
)
CELLS = torch.tensor([[[-0.9, 0.2], [0.1, 0.7]], [[0.1, 0.8], [-2.0, 0.5]]])  # (C, H, W)


@pytest.mark.parametrize(
    ("kind", "lower_right"),
    [
        # (.7, .5) is nearest to right; then (.7, .5) + (−.3, .5) = (.4, 1) to up: the mean of the two.
        ("saq", (0.5, 0.5)),
        # The rest (−.3, .5) is nearest to up: the sum of the two.
        ("residual", (1.0, 1.0)),
    ],
)
def test_a_picture_of_four_cells_gets_the_words_one_sees(kind, lower_right):
    quantizer = StreamingAverageQuantizer(
        QuantizerConfig(kind=kind), PyramidConfig(layer_grids=((1, 1), (2, 2))), AXES, 2
    )
    output = quantizer.quantize(CELLS[None])
    pyramid = TokenPyramid(code_indices=output.code_indices, codebook=AXES)
    assert pyramid.words(1) == [["right"]]
    assert pyramid.words(2) == [["left", "up", "down", "up"]]
    assert pyramid.flatten().tolist() == [[1, 0, 2, 3, 2]]
    assert pyramid.num_layers == 2
    expected = torch.tensor([[[-1.0, 0.0], [0.0, lower_right[0]]], [[0.0, 1.0], [-1.0, lower_right[1]]]])
    torch.testing.assert_close(output.quantized[0], expected)
    for layer in (0, 3):
        with pytest.raises(IndexError, match=f"expected 1 to 2, got {layer}"):
            pyramid.words(layer)


def test_words_and_tokens_of_a_batch_stay_with_their_picture():
    indices = (torch.tensor([[[3]], [[0]]]), torch.tensor([[[0, 1], [2, 3]], [[2, 2], [1, 1]]]))
    pyramid = TokenPyramid(code_indices=indices, codebook=AXES)
    assert pyramid.words(1) == [["down"], ["left"]]
    assert pyramid.words(2) == [["left", "right", "up", "down"], ["up", "up", "right", "right"]]
    assert pyramid.flatten().tolist() == [[3, 0, 1, 2, 3], [0, 2, 2, 1, 1]]

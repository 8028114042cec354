"""Blocks added to a trained model: nothing changes at first, and then they learn."""

import pytest
import torch

from spae_core.deepening import deepen
from spae_core.errors import ModelError


def test_a_deeper_model_gives_the_same_words_and_pictures(tiny_tokenizer):
    deeper = deepen(tiny_tokenizer, encoder_blocks=1, decoder_blocks=2)
    assert deeper.config.encoder.num_middle_blocks == tiny_tokenizer.config.encoder.num_middle_blocks + 1
    assert deeper.config.decoder.num_middle_blocks == tiny_tokenizer.config.decoder.num_middle_blocks + 2
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    words, same_words = tiny_tokenizer.tokenize(images), deeper.tokenize(images)
    assert torch.equal(words.flatten(), same_words.flatten())
    assert torch.equal(deeper.detokenize(words), tiny_tokenizer.detokenize(words))


def test_what_is_added_can_learn(tiny_tokenizer):
    deeper = deepen(tiny_tokenizer, encoder_blocks=1, decoder_blocks=1)
    images = torch.rand(2, 3, 32, 32)
    (deeper.decoder(deeper.encoder(images)) - images).square().mean().backward()
    for network in (deeper.encoder, deeper.decoder):
        assert network.middle[-1].conv2.weight.grad.abs().sum() > 0


def test_the_model_that_is_deepened_stays_as_it_is(tiny_tokenizer):
    before = {name: weight.clone() for name, weight in tiny_tokenizer.state_dict().items()}
    deeper = deepen(tiny_tokenizer, encoder_blocks=0, decoder_blocks=1)
    with torch.no_grad():
        for weight in deeper.parameters():
            weight.add_(1)
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_tokenizer.state_dict().items())


def test_a_model_cannot_be_made_shallower(tiny_tokenizer):
    with pytest.raises(ModelError, match="expected 0 or more for each network, got 0 and -1"):
        deepen(tiny_tokenizer, encoder_blocks=0, decoder_blocks=-1)

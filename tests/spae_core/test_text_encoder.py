"""Mean pooling of the text encoder, on a random two-layer BERT with a vocabulary of ten words."""

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from spae_core.errors import ModelError
from spae_core.text_encoder import MiniLmTextEncoder

WORDS = ("a", "cat", "dog", "sat", "on", "the", "mat")


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab={word: n for n, word in enumerate(vocabulary)}).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_vector_is_the_mean_over_the_texts_own_tokens(bert_folder):
    encoder = MiniLmTextEncoder.from_folder(bert_folder)
    text = "the cat sat"
    model = BertModel.from_pretrained(bert_folder).eval()
    tokens = BertTokenizerFast.from_pretrained(bert_folder)(text, return_tensors="pt")
    with torch.no_grad():
        mean = model(**tokens).last_hidden_state[0].mean(dim=0)
    # A longer neighbour forces padding, which must not count.
    vectors = encoder.encode_texts([text, "the cat sat on the mat"])
    torch.testing.assert_close(vectors[0], mean / mean.norm(), atol=1e-6, rtol=1e-5)
    assert encoder.feature_dim == 16


def test_vectors_keep_the_order_of_the_texts_and_have_norm_1(bert_folder):
    texts = ["the cat sat on the mat", "a dog", "", "cat", "on the mat", "dog"]
    whole = MiniLmTextEncoder.from_folder(bert_folder).encode_texts(texts)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(len(texts)))
    batched = MiniLmTextEncoder.from_folder(bert_folder, batch_size=2).encode_texts(texts)
    torch.testing.assert_close(batched, whole, atol=1e-5, rtol=0.0)
    backwards = MiniLmTextEncoder.from_folder(bert_folder).encode_texts(texts[::-1])
    torch.testing.assert_close(backwards.flip(0), whole, atol=1e-5, rtol=0.0)
    assert (whole[1] - whole[5]).abs().max() > 1e-3


def test_equal_calls_give_equal_bits(bert_folder):
    encoder = MiniLmTextEncoder.from_folder(bert_folder)
    texts = ["a cat", "the mat"]
    assert torch.equal(encoder.encode_texts(texts), encoder.encode_texts(texts))
    assert encoder.encode_texts([]).shape == (0, 16)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="Fetch the asset `minilm` or pass another folder"):
        MiniLmTextEncoder.from_folder(tmp_path)

"""What a training gets ready once, and keeps for its next start while nothing it depends on changes."""

from dataclasses import replace

import pytest
import torch
from public_assets import fetched
from training_runs import smooth_crops

from jobs.training_inputs import fit_semantic_head, rank_crops
from pipelines.errors import UsageError
from spae_core.configs import RankedWordsConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import preset
from spae_core.text_encoder import MiniLmTextEncoder
from spae_core.tokenizer import SpaeTokenizer
from spae_core.training_batches import TrainingData


def test_crops_are_named_once_and_others_anew(naming_tokenizer, tmp_path, monkeypatch: pytest.MonkeyPatch):
    crops = smooth_crops()
    data = TrainingData(crops=crops, crops_sha256="a" * 64)
    named = rank_crops(naming_tokenizer, data, tmp_path)
    assert named.shape == (len(crops), 1 + 4 + 16)
    as_many_others = TrainingData(crops=crops[::-1], crops_sha256="b" * 64)
    assert torch.equal(rank_crops(naming_tokenizer, as_many_others, tmp_path), named.flip(0))
    monkeypatch.setattr(naming_tokenizer, "rank_words", None)  # would be called for crops that are not kept
    assert torch.equal(rank_crops(naming_tokenizer, data, tmp_path), named)


NOUNS = """cat dog bird fish horse car boat plane train bicycle house church bridge tower castle mountain river beach
forest flower tree mushroom apple bread cheese wine coffee soup pizza table chair bed lamp clock book pencil keyboard
screen phone camera guitar piano drum ball racket shoe hat shirt ring king soldier bear wolf frog"""
WORDS = tuple(NOUNS.split())


@pytest.mark.assets
@pytest.mark.slow
def test_a_head_is_taught_real_words_once_for_its_settings(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys):
    fetched("efficientnet-lite0")
    minilm = fetched("minilm")
    monkeypatch.setattr("jobs.training_inputs._HEAD_STEPS", 300)
    generator = torch.Generator().manual_seed(0)
    codebook = LexicalCodebook(
        embeddings=torch.nn.functional.normalize(torch.randn(len(WORDS), 32, generator=generator), dim=1),
        token_ids=tuple(range(len(WORDS))),
        words=WORDS,
        source="made up",
    )
    config = replace(preset("tiny"), embedding_dim=32, ranked_words=RankedWordsConfig(num_layers=3))
    first, second = SpaeTokenizer(config, codebook), SpaeTokenizer(config, codebook)
    fit_semantic_head(first, "efficientnet-lite0", "minilm", tmp_path)
    class_vectors = first.ranked_words.image_encoder.class_text_vectors
    nearest = torch.cdist(first.ranked_words.head(class_vectors), codebook.embeddings).argmin(dim=1)
    word_vectors = MiniLmTextEncoder.from_folder(minilm).encode_texts(WORDS)
    closest = (class_vectors @ word_vectors.t()).topk(3, dim=1).indices
    assert (closest == nearest[:, None]).any(dim=1).float().mean() > 0.9

    assert "teaching the semantic head from 54 words, 300 steps" in capsys.readouterr().err

    fit_semantic_head(second, "efficientnet-lite0", "minilm", tmp_path)
    assert "teaching" not in capsys.readouterr().err
    for name, value in first.ranked_words.state_dict().items():
        assert torch.equal(second.ranked_words.state_dict()[name], value), name
    with pytest.raises(UsageError, match="no-such-encoder"):  # other settings: taught again, if there were such
        fit_semantic_head(second, "efficientnet-lite0", "no-such-encoder", tmp_path)

"""A codebook on disk and back, its hash, and the damaged ones that are refused."""

import os

import pytest
import torch
from safetensors.torch import save_file

from spae_core.errors import ModelError
from spae_core.lexical_codebook import FORMAT, LexicalCodebook


def small(**changes: object) -> LexicalCodebook:
    fields = {
        "embeddings": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
        "token_ids": (7, 300_000, 2),
        "words": ("cat", "naïve ☕", ' "quoted"\n'),
        "source": "by hand",
        "settings": {"lookup": "pca", "ridge": 0.1, "whole_words": True, "size": 3},
    }
    return LexicalCodebook(**(fields | changes))


def test_a_codebook_comes_back_from_disk_as_it_was(tmp_path):
    codebook = small()
    codebook.save(tmp_path / "codebook.safetensors")
    loaded = LexicalCodebook.load(tmp_path / "codebook.safetensors")
    assert loaded.words == codebook.words
    assert loaded.token_ids == codebook.token_ids
    assert loaded.source == codebook.source
    assert loaded.settings == codebook.settings
    assert loaded.embeddings.dtype == torch.float32
    assert torch.equal(loaded.embeddings, codebook.embeddings)
    assert loaded.sha256 == codebook.sha256
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "codebook.safetensors").read_bytes()
    assert (loaded.codebook_size, loaded.embedding_dim) == (3, 2)


def test_vectors_are_used_as_they_are_stored():
    vectors = torch.tensor([[1 / 3]])
    codebook = small(embeddings=vectors, token_ids=(1,), words=("third",))
    assert codebook.embeddings.item() == vectors.half().item() != vectors.item()


def test_the_hash_is_of_vectors_ids_and_words_and_not_of_where_they_came_from():
    codebook = small()
    changed = codebook.embeddings.clone()
    changed[2, 1] *= 1.01
    others = [
        small(embeddings=changed),
        small(token_ids=(7, 300_000, 3)),
        small(words=("cat", "naïve ☕", "quoted")),
        small(words=("naïve ☕", "cat", ' "quoted"\n')),
    ]
    assert len({codebook.sha256, *(other.sha256 for other in others)}) == 5
    assert small(source="elsewhere", settings={}).sha256 == codebook.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": torch.zeros(3)}, r"expected vectors \(V, C\), got \(3,\)"),
        ({"token_ids": (1, 2)}, "got 3, 2 and 3"),
        ({"words": ("a", "b", "c", "d")}, "got 3, 3 and 4"),
        ({"embeddings": torch.zeros(2, 2)}, "got 2, 3 and 3"),
        ({"embeddings": torch.tensor([[0.0], [torch.nan], [1.0]])}, "finite"),
        ({"embeddings": torch.tensor([[0.0], [-torch.inf], [1.0]])}, "finite"),
        # Finite, but not in the float16 that is stored and searched.
        ({"embeddings": torch.tensor([[0.0], [1e5], [1.0]])}, "finite"),
    ],
)
def test_parts_that_do_not_fit_or_are_not_finite_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        small(**changes)


def test_an_absent_damaged_or_foreign_file_is_refused_by_name(tmp_path):
    path = tmp_path / "codebook.safetensors"
    with pytest.raises(ModelError, match=str(path)):
        LexicalCodebook.load(path)
    small().save(path)
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=f"{path}: expected a whole safetensors file"):
            LexicalCodebook.load(path)
    save_file({"embeddings": torch.zeros(2, 2)}, path)
    with pytest.raises(ModelError, match="expected format spae-codebook/1, got None"):
        LexicalCodebook.load(path)
    save_file({"embeddings": torch.zeros(2, 2)}, path, metadata={"format": "spae-codebook/2"})
    with pytest.raises(ModelError, match="expected format spae-codebook/1, got spae-codebook/2"):
        LexicalCodebook.load(path)
    save_file({"embeddings": torch.zeros(2, 2), "token_ids": torch.zeros(2)}, path, metadata={"format": FORMAT})
    with pytest.raises(ModelError, match=r"expected words, source and settings .*KeyError"):
        LexicalCodebook.load(path)


def test_every_save_gives_the_same_bytes_and_a_file_like_any_other(tmp_path):
    paths = [tmp_path / f"{index}.safetensors" for index in range(8)]
    for path in paths:
        small().save(path)
    assert len({path.read_bytes() for path in paths}) == 1
    (tmp_path / "other").write_text("")
    assert os.stat(paths[0]).st_mode == os.stat(tmp_path / "other").st_mode

import pytest

from schemas.codebook_table import codebook_table


def test_each_entry_has_its_position_its_llm_id_and_its_word():
    table = codebook_table(words=["cat", "dog"], token_ids=[300, 7], codebook_sha256="a" * 64, source="an LLM")
    assert table.to_pylist() == [
        {"code_index": 0, "token_id": 300, "text": "cat"},
        {"code_index": 1, "token_id": 7, "text": "dog"},
    ]
    assert table.schema.metadata[b"spae.schema"] == b"codebook-table/1"
    assert table.schema.metadata[b"spae.codebook_sha256"] == b"a" * 64


def test_words_without_ids_are_refused():
    with pytest.raises(ValueError, match="got 2 and 1"):
        codebook_table(words=["cat", "dog"], token_ids=[300], codebook_sha256="a" * 64, source="an LLM")

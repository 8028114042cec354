"""Vocabularies of both kinds written by hand, and the filters on words that can be checked by eye."""

import json
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from spae_core.errors import ModelError
from spae_core.vocabulary import Token, TokenFilter, filter_tokens, read_vocabulary


def byte_level(text: bytes | str) -> str:
    """Bytes in the letters of GPT-2's alphabet: printable ones stand for themselves, the rest follow 'Ā'."""
    data = text.encode() if isinstance(text, str) else text
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return "".join(chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in data)


def write_tokenizer(folder: Path, **description: object) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(description), encoding="utf-8")
    return path


PIECES = [" cat", "cat", " naïve", b"\xe2\x98", " ☕", "\n", b"\xff", "!"]


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        {"type": "ByteLevel", "add_prefix_space": False},
        {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]},
    ],
)
def test_byte_level_tokens_are_read_as_the_bytes_they_stand_for(tmp_path, pre_tokenizer):
    # Written backwards: the order is the ids', not the file's.
    vocabulary = {byte_level(piece): 3 + index for index, piece in reversed(list(enumerate(PIECES)))}
    vocabulary |= {"<|endoftext|>": 0, "<|im_start|>": 1, "<pad>": 2}
    path = write_tokenizer(
        tmp_path,
        model={"type": "BPE", "vocab": vocabulary},
        added_tokens=[{"id": index, "special": True} for index in range(3)],
        pre_tokenizer=pre_tokenizer,
    )
    expected = [piece if isinstance(piece, bytes) else piece.encode() for piece in PIECES]
    tokens = read_vocabulary(path)
    assert [token.data for token in tokens] == expected
    assert [token.token_id for token in tokens] == list(range(3, 11))
    assert tokens == read_vocabulary(str(path))


def test_the_alphabet_of_this_test_is_that_of_the_library():
    assert set(byte_level(bytes(range(256)))) == set(ByteLevel.alphabet())
    for text in (" cat", "naïve ☕\n"):
        (piece, _), *_ = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        assert piece == byte_level(text)


def test_all_256_bytes_are_told_apart(tmp_path):
    vocabulary = {byte_level(bytes([byte])): byte for byte in range(256)}
    path = write_tokenizer(tmp_path, model={"vocab": vocabulary}, pre_tokenizer={"type": "ByteLevel"})
    assert [token.data for token in read_vocabulary(path)] == [bytes([byte]) for byte in range(256)]


SENTENCE_PIECES = ["<unk>", "<s>", "<0x41>", "<0xFF>", "▁cat", "s", "▁", "▁▁two", "é"]
AS_BYTES = [b"A", b"\xff", b" cat", b"s", b" ", b"  two", "é".encode()]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentence_pieces_are_read_as_the_bytes_they_stand_for(tmp_path, kind):
    vocabulary = (
        {piece: index for index, piece in enumerate(SENTENCE_PIECES)}
        if kind == "bpe"
        else [[piece, -float(index)] for index, piece in enumerate(SENTENCE_PIECES)]
    )
    path = write_tokenizer(
        tmp_path,
        model={"vocab": vocabulary},
        added_tokens=[{"id": 0}, {"id": 1}],
        pre_tokenizer={"type": "Metaspace"} if kind == "unigram" else None,
    )
    tokens = read_vocabulary(path)
    assert [token.data for token in tokens] == AS_BYTES
    assert [token.token_id for token in tokens] == list(range(2, 9))


@pytest.mark.parametrize(
    "content", ["", "no json", "[]", "{}", '{"model": {}}', '{"model": {"vocab": {}}, "added_tokens": [{}]}']
)
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=f"{path}: expected a Hugging Face tokenizer.json"):
        read_vocabulary(path)


def test_an_absent_or_binary_file_is_refused_by_name(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError, match=str(path)):
        read_vocabulary(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=str(path)):
        read_vocabulary(path)


def tokens_of(*pieces: str | bytes) -> list[Token]:
    return [
        Token(10 + index, piece if isinstance(piece, bytes) else piece.encode()) for index, piece in enumerate(pieces)
    ]


def test_tokens_that_are_no_text_on_their_own_are_left_out():
    tokens = tokens_of("ok", b"\xe2\x98", b"\xff", " ", "\n", "", "☕")
    assert filter_tokens(tokens, TokenFilter()) == [(10, "ok"), (16, "☕")]
    kept = filter_tokens(tokens, TokenFilter(valid_utf8=False))
    assert [token_id for token_id, _ in kept] == [10, 11, 16]


def test_space_led_tokens_begin_a_word_and_lose_their_space():
    tokens = tokens_of(" Cat", "cat", " cat", "  two", " ", " 42", " (", " \n", " cat")
    kept = filter_tokens(tokens, TokenFilter(space_led=True))
    assert kept == [(10, "Cat"), (12, "cat"), (15, "42"), (16, "(")]


def test_without_that_rule_cat_with_and_without_a_space_are_two_entries():
    assert filter_tokens(tokens_of(" cat", "cat", "cat"), TokenFilter()) == [(10, " cat"), (11, "cat")]


def test_whole_words_are_common_lower_case_and_ascii_and_the_most_frequent_comes_first():
    pieces = (" dog", " Dog", " the", "the", " irrit", " naïve", " a", " u2", " dachshund", " don't", " xqzvw")
    kept = filter_tokens(tokens_of(*pieces), TokenFilter(whole_words=True))
    assert kept == [(12, "the"), (10, "dog")]
    rarer = filter_tokens(tokens_of(*pieces), TokenFilter(whole_words=True, min_zipf=2.0))
    assert (18, "dachshund") in rarer
    assert rarer[0] == (12, "the")


def test_the_most_frequent_are_the_first_by_id_or_by_use():
    pieces = (" zebra", " house", " of")
    assert filter_tokens(tokens_of(*pieces), TokenFilter(space_led=True, most_frequent=2)) == [
        (10, "zebra"),
        (11, "house"),
    ]
    assert filter_tokens(tokens_of(*pieces), TokenFilter(whole_words=True, most_frequent=2)) == [
        (12, "of"),
        (11, "house"),
    ]
    assert len(filter_tokens(tokens_of(*pieces), TokenFilter(most_frequent=3))) == 3


def test_a_filter_that_leaves_too_few_is_refused_with_both_counts():
    with pytest.raises(ModelError, match="at least 3 tokens, got 2"):
        filter_tokens(tokens_of("a", "b"), TokenFilter(most_frequent=3))
    with pytest.raises(ModelError, match="at least 1 tokens, got 0"):
        filter_tokens(tokens_of(b"\xff"), TokenFilter())

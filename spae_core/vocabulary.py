"""An LLM's vocabulary as text, and filters that pick the tokens worth being a codebook.

Source: arXiv 2306.17842: the 65k most frequent sentence pieces of PaLM 2, or the 99k BPE tokens that are valid UTF-8.
The word filters are ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from wordfreq import zipf_frequency

from spae_core.errors import ModelError

SENTENCE_PIECE_SPACE = "▁"


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of an LLM's vocabulary.

    Attributes:
        token_id: The LLM's id.
        data: What it stands for, as bytes; a leading space is the byte 0x20.
    """

    token_id: int
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFilter:
    """Which tokens become codebook entries; every condition must hold.

    Attributes:
        valid_utf8: Only tokens that are text on their own.
        space_led: Only tokens that begin a word (lead with a space).
        whole_words: Only lower-case ASCII words of 2 letters or more that people use: `wordfreq` Zipf frequency of at
            least `min_zipf`.
        min_zipf: Zipf frequency, 0 to 8 (3: once in a million words).
        most_frequent: Keep this many, by Zipf frequency for whole words and by the LLM's own order (frequent first in
            every BPE and sentence-piece vocabulary) otherwise. 0 keeps all.
    """

    valid_utf8: bool = True
    space_led: bool = False
    whole_words: bool = False
    min_zipf: float = 3.0
    most_frequent: int = 0


def read_vocabulary(tokenizer_json: str | Path) -> list[Token]:
    """Read the ordinary (not added or special) tokens of a Hugging Face `tokenizer.json`, by id.

    Handles byte-level BPE (GPT-2, Llama 3, SmolLM2) and sentence pieces (Llama 2, Gemma).

    Raises:
        ModelError: If the file is not such a tokenizer.
    """
    try:
        description = json.loads(Path(tokenizer_json).read_text(encoding="utf-8"))
        vocabulary = description["model"]["vocab"]
        special = {entry["id"] for entry in description.get("added_tokens", [])}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(
            f"tokenizer {tokenizer_json}: expected a Hugging Face tokenizer.json, got: {error!r}. "
            "Give the LLM's folder."
        ) from error
    pairs = (
        [(piece, token_id) for token_id, (piece, _) in enumerate(vocabulary)]
        if isinstance(vocabulary, list)
        else list(vocabulary.items())
    )
    to_byte = _byte_of_letter() if "ByteLevel" in json.dumps(description.get("pre_tokenizer")) else None
    tokens = [Token(token_id, _to_bytes(piece, to_byte)) for piece, token_id in pairs if token_id not in special]
    return sorted(tokens, key=lambda token: token.token_id)


def filter_tokens(tokens: Sequence[Token], rule: TokenFilter) -> list[tuple[int, str]]:
    """Apply a filter.

    Returns:
        (token_id, text) of each token kept, most frequent first, without the leading space; a text that occurs twice
        is kept once, with the lower id.

    Raises:
        ModelError: If nothing is left, or fewer than `most_frequent`.
    """
    kept: dict[str, int] = {}
    for token in tokens:
        text = token.data.decode("utf-8", errors="replace")
        if (rule.valid_utf8 and "\ufffd" in text) or not text.strip():
            continue
        if (rule.space_led or rule.whole_words) and not (text.startswith(" ") and text[1:2].strip()):
            continue
        word = text.strip() if rule.space_led or rule.whole_words else text
        if rule.whole_words and not _is_whole_word(word, rule.min_zipf):
            continue
        kept.setdefault(word, token.token_id)
    pairs = [(token_id, word) for word, token_id in kept.items()]
    if rule.whole_words:
        pairs.sort(key=lambda pair: (-zipf_frequency(pair[1], "en"), pair[0]))
    if not pairs or len(pairs) < rule.most_frequent:
        raise ModelError(
            f"token filter: expected at least {max(1, rule.most_frequent)} tokens, got {len(pairs)}. Loosen the filter."
        )
    return pairs[: rule.most_frequent] if rule.most_frequent else pairs


def _is_whole_word(word: str, min_zipf: float) -> bool:
    return (
        len(word) >= 2
        and word.isascii()
        and word.isalpha()
        and word.islower()
        and (zipf_frequency(word, "en") >= min_zipf)
    )


def _byte_of_letter() -> dict[str, int]:
    """Byte-level BPE writes every byte as a printable letter; this is the way back."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(256 + index): byte for index, byte in enumerate(b for b in range(256) if b not in printable)}
    assert set(table) == set(ByteLevel.alphabet())
    return table


def _to_bytes(piece: str, to_byte: dict[str, int] | None) -> bytes:
    if to_byte is not None:
        return bytes(to_byte[letter] for letter in piece)
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(SENTENCE_PIECE_SPACE, " ").encode()

"""Fixtures shared by all tests: a small codebook and a small model with random weights."""

from pathlib import Path

import pytest
import torch
from emulators import bucket, gcs_bucket, gcs_emulator, s3_bucket, s3_emulator  # noqa: F401  (fixtures)

from spae_core.lexical_codebook import LexicalCodebook
from spae_core.tokenizer import SpaeTokenizer

TINY_WORDS = tuple(
    f"{first}{second}" for first in "abcdefgh" for second in ("at", "en", "in", "og", "um", "ar", "el", "is")
)


@pytest.fixture(scope="session")
def tiny_codebook() -> LexicalCodebook:
    """64 made-up words with random vectors of norm 1, 8 wide."""
    vectors = torch.randn(len(TINY_WORDS), 8, generator=torch.Generator().manual_seed(7))
    return LexicalCodebook(
        embeddings=torch.nn.functional.normalize(vectors, dim=1),
        token_ids=tuple(range(1000, 1000 + len(TINY_WORDS))),
        words=TINY_WORDS,
        source="made up",
    )


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_codebook: LexicalCodebook) -> SpaeTokenizer:
    """The `tiny` preset with random weights; do not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpaeTokenizer.from_preset("tiny", tiny_codebook).eval()


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_tokenizer: SpaeTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model saved, as a user would name it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_tokenizer.save_pretrained(folder)
    return folder

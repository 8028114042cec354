"""Fixtures shared by all tests: a small codebook, a small model with random weights, and one Ray cluster."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from emulators import bucket, gcs_bucket, gcs_emulator, s3_bucket, s3_emulator  # noqa: F401  (fixtures)

from spae_core.configs import RankedWordsConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import preset
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
def naming_tokenizer(tiny_codebook) -> SpaeTokenizer:
    """The tiny model with a random semantic head for its first three layers (1 + 4 + 16 words); do not change it."""
    ranked = RankedWordsConfig(num_layers=3, text_dim=6, hidden_dim=5, num_classes=7)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SpaeTokenizer(replace(preset("tiny"), ranked_words=ranked), tiny_codebook).eval()
        model.ranked_words.image_encoder.class_text_vectors.copy_(torch.randn(7, 6))
        with torch.no_grad():  # a random classifier's features are about 1e-8 and the biases all that counts
            model.ranked_words.image_encoder.classifier.bn2.weight.mul_(1e8)
            for name, parameter in model.ranked_words.head.named_parameters():
                parameter.mul_(3 if name.endswith("weight") else 0)
    return model


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_tokenizer: SpaeTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model saved, as a user would name it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a Ray cluster that this process is connected to: 9 CPUs and 2 GPUs, whatever the machine has.

    Its workers find the emulated buckets by environment variables, so these are set before it starts.

    RAY_ADDRESS names one of that size that is there already; its workers must find the project and `tests/`.
    """
    import ray

    for emulator in ("gcs_emulator", "s3_emulator"):
        request.getfixturevalue(emulator)
    before = signal.getsignal(signal.SIGTERM)
    size = {"num_cpus": 9, "num_gpus": 2, "include_dashboard": False, "object_store_memory": 200_000_000}
    address = os.environ.get("RAY_ADDRESS")
    # Workers unpickle stages that are defined in tests/; pytest puts it on the path of this process only.
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(address or "local", **({} if address else size), log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, before)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()

"""Small real runs for the tests of the report, by a model whose words try to be markup."""

from dataclasses import replace
from pathlib import Path

import torch
from pictures import photo

from jobs.tokenize_corpus import TokenizeCorpus
from spae_core.configs import PyramidConfig
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.presets import tiny
from spae_core.tokenizer import SpaeTokenizer

HOSTILE_WORDS = (
    "<img src=x onerror=document.title=1>",
    "</script><script>document.title=2</script>",
    "&amp;",
    "'\"><b>bold</b>",
    "{{ 7 * 7 }}",
    "a\u2028b",
    "internationalisation",
    "é",
)
HOSTILE_NAME = "<img src=x onerror=document.title=3>.png"
GRIDS = ((1, 1), (2, 2), (4, 4), (8, 8), (8, 8))
NUM_WORDS = 64


def small_model(folder: Path) -> Path:
    """A random model of 64 px, five layers and 64 words, an eighth of them hostile."""
    generator = torch.Generator().manual_seed(3)
    words = HOSTILE_WORDS + tuple(f"word{number}" for number in range(NUM_WORDS - len(HOSTILE_WORDS)))
    codebook = LexicalCodebook(
        embeddings=torch.randn(NUM_WORDS, 8, generator=generator),
        token_ids=tuple(range(100, 100 + NUM_WORDS)),
        words=words,
        source="A made-up <LLM>, random vectors",
    )
    config = replace(tiny(), name="small", image_size_px=64, pyramid=PyramidConfig(layer_grids=GRIDS))
    torch.manual_seed(4)
    model = SpaeTokenizer(config, codebook).eval()
    # Random weights give every cell nearly the same latent; scaled up, they choose different words.
    with torch.no_grad():
        images = torch.rand(4, 3, 64, 64, generator=generator)
        scale = 1.0 / model.encode(images).std()
        last = [module for module in model.encoder.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        last.weight *= scale * 4
    model.save_pretrained(folder)
    return folder


def write_photos(folder: Path, names: tuple[str, ...]) -> Path:
    """One made-up photograph a name."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        photo(90, 70, seed=seed).save(folder / name)
    return folder


def tokenize(inputs: Path, out: Path, model: Path, **options: object) -> Path:
    """Run the real job; returns the folder of the run."""
    command = TokenizeCorpus(
        inputs=(str(inputs),),
        out=str(out),
        model=str(model),
        num_threads=1,
        max_quarantined_fraction=1.0,
        **options,
    )
    assert command.run() == 0
    return out

"""The thousand ImageNet classes as text, read from the word lists that timm ships.

Source: WordNet 3.0 lemmas and definitions, in the class order of ILSVRC 2012.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from spae_core.errors import ModelError


@cache
def imagenet_class_texts() -> tuple[str, ...]:
    """A short text for each class: its first lemma and its definition.

    A bare class name is ambiguous (a loafer is bread or a shoe, a kite a toy or a bird); the definition says
    which.

    Returns:
        1000 texts "first lemma: definition", in class order.

    Raises:
        ModelError: If timm's word lists are not where they are in the versions we know.
    """
    definitions = _read_table("imagenet_synset_to_definition.txt")
    return tuple(
        f"{name}: {definitions[synset]}" for synset, name in zip(_synsets(), imagenet_class_names(), strict=True)
    )


@cache
def imagenet_class_names() -> tuple[str, ...]:
    """The first lemma of each class, 1000 of them in class order; two classes may share one ("crane").

    Raises:
        ModelError: If timm's word lists are not where they are in the versions we know.
    """
    lemmas = _read_table("imagenet_synset_to_lemma.txt")
    return tuple(lemmas[synset].split(",")[0].strip() for synset in _synsets())


def _synsets() -> list[str]:
    return _read("imagenet_synsets.txt").split()


def _read_table(name: str) -> dict[str, str]:
    rows = (line.split("\t", maxsplit=1) for line in _read(name).splitlines())
    return {synset: text.strip() for synset, text in rows}


def _read(name: str) -> str:
    # Found without importing timm, which takes seconds.
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        raise ModelError("ImageNet word lists: expected the package timm, got none. Install the requirements.")
    path = Path(spec.origin).parent / "data" / "_info" / name
    if not path.is_file():
        raise ModelError(
            f"ImageNet word lists: expected timm to hold {name}, got no such file. Install the locked timm version."
        )
    return path.read_text(encoding="utf-8")

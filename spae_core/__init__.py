"""SPAE: images as pyramids of an LLM's own words, and back (arXiv 2306.17842).

The names below load on first use, so importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "SpaeTokenizer": "spae_core.tokenizer",
    "TokenPyramid": "spae_core.structs",
    "LexicalCodebook": "spae_core.lexical_codebook",
    "StreamingAverageQuantizer": "spae_core.quantizer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type is that of the name asked for
    """Import the home of `name` on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spae_core' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)

"""A small sentence encoder: any text to a unit vector.

Used for the class texts of ConSE, and for a codebook made of the vectors of each token's text.

Source: Reimers and Gurevych 2019 (arXiv 1908.10084); the weights are all-MiniLM-L6-v2.

Letters: N texts, T feature_dim, S tokens of the longest text in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from spae_core.errors import ModelError

_MAX_TOKENS = 256  # what the model was trained with; longer texts are cut


class TextEncoder(Protocol):
    """Anything that gives texts unit vectors."""

    @property
    def feature_dim(self) -> int:
        """T."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Map N texts to float32 (N, T) of unit norm."""
        ...


class MiniLmTextEncoder:
    """Mean of the last hidden states over a text's tokens, scaled to norm 1.

    Args:
        model: A transformers encoder with `last_hidden_state`.
        tokenizer: Its tokenizer.
        batch_size: Texts a forward pass.

    Attributes:
        name: `minilm`.
    """

    name = "minilm"

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 128) -> None:  # noqa: ANN401
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, device: str | torch.device = "cpu", batch_size: int = 128
    ) -> MiniLmTextEncoder:
        """Load model and tokenizer from a local folder in the transformers layout.

        Args:
            folder: Holds config.json, model.safetensors, tokenizer.json.
            device: Where to compute.
            batch_size: Texts a forward pass.

        Returns:
            The encoder.

        Raises:
            ModelError: If the folder holds no such model.
        """
        # Imported here: transformers is not needed to tokenize pictures.
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        # A bar that is full before it is seen would only break our own.
        bars: Any = transformers_logging
        bar_was_on = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = AutoModel.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"text encoder: expected a transformers model in {folder}, got {str(error).rstrip('.')}. "
                "Fetch the asset `minilm` or pass another folder."
            ) from error
        finally:
            if bar_was_on:
                bars.enable_progress_bar()
        return cls(model.to(device), tokenizer, batch_size=batch_size)

    @property
    def feature_dim(self) -> int:
        """T, 384 for MiniLM-L6."""
        return int(self._model.config.hidden_size)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, in batches of like length so that little is computed on padding.

        Args:
            texts: N texts; an empty one is allowed.

        Returns:
            float32 (N, T) of unit norm, on the CPU, in the order of `texts`. Equal calls give equal vectors;
            a text's vector depends on its neighbours in the sixth digit only.
        """
        vectors = torch.empty(len(texts), self.feature_dim)
        by_length = sorted(range(len(texts)), key=lambda position: (len(texts[position]), position))
        for start in range(0, len(texts), self._batch_size):
            positions = by_length[start : start + self._batch_size]
            vectors[positions] = self._encode_batch([texts[position] for position in positions]).cpu()
        return vectors

    def _encode_batch(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt").to(
            self._model.device
        )
        hidden: Tensor = self._model(**tokens).last_hidden_state.float()  # (batch, S, T)
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        return F.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)

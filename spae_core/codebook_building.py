"""Builds lexical codebooks: which vector stands for each word, and in which space latents are compared with it.

Sources of vectors: an LLM's input embeddings (the paper's PaLM 2 codebook), a text encoder's vector of each token's
text (its ada-002 codebook), an open_clip text tower with 80 templates (V2L-Tokenizer, CVPR 2024).

Lookup spaces, not in the paper: a naive training on hundreds of dimensions ends with a handful of words in use.
`pca` whitens the codebook's own principal axes; `text` regresses the LLM's rows onto the whitened principal axes of a
text encoder's word vectors, so that near means alike.

Letters: V codebook size, C_0 width of the source vectors, C embedding_dim, T width of text vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from spae_core.errors import GGUF_READER_ERRORS, ModelError

Normalization = Literal["none", "unit_mean_norm", "unit_sphere"]
_EMBEDDING_KEYS = ("model.embed_tokens.weight", "embeddings", "transformer.wte.weight", "token_embd.weight")


def read_llm_embeddings(folder: str | Path) -> Tensor:
    """Read an LLM's input embeddings, float32 (vocabulary, C_0), from its safetensors files or GGUF file.

    Raises:
        ModelError: If the folder holds neither, or no tensor that is known to be the input embedding.
    """
    folder = Path(folder)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for key in _EMBEDDING_KEYS:
                    if key in file.keys():  # noqa: SIM118 - a safetensors handle is not iterable
                        tensor: Tensor = file.get_tensor(key)
                        return tensor.float()
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: expected a whole safetensors file, got: {error}. Copy it again.") from error
    for path in sorted(folder.glob("*.gguf")):
        return _read_gguf_embeddings(path)
    raise ModelError(
        f"LLM {folder}: expected *.safetensors or *.gguf with one of {', '.join(_EMBEDDING_KEYS)}, got none. "
        "Give the folder of a Hugging Face model, or `spae assets fetch smollm2`."
    )


def _read_gguf_embeddings(path: Path) -> Tensor:
    import gguf

    try:
        for tensor in gguf.GGUFReader(path).tensors:
            if tensor.name == "token_embd.weight":
                values = gguf.dequantize(tensor.data, tensor.tensor_type)
                return torch.from_numpy(np.array(values, np.float32))  # a copy: the file is mapped read-only
    except GGUF_READER_ERRORS as error:
        raise ModelError(f"{path}: expected a whole GGUF file, got: {error!r}. Copy it again.") from error
    raise ModelError(f"{path}: expected a tensor token_embd.weight, got none. Is this a language model?")


def normalize_rows(vectors: Tensor, how: Normalization) -> Tensor:
    """Scale (V, C): as it is, to a mean norm of 1, or centred with every row on the unit sphere."""
    if how == "unit_mean_norm":
        scaled: Tensor = vectors / vectors.norm(dim=1).mean()
        return scaled
    if how == "unit_sphere":
        return F.normalize(vectors - vectors.mean(dim=0), dim=1)
    return vectors


def whitened_principal_axes(vectors: Tensor, num_axes: int) -> Tensor:
    """Coordinates (V, num_axes) on the top principal axes, each with mean 0 and variance 1; signs fixed.

    Raises:
        ModelError: If there are fewer axes than asked for.
    """
    if num_axes > min(vectors.shape):
        raise ModelError(
            f"lookup space: expected at most {min(vectors.shape)} dimensions for vectors {tuple(vectors.shape)}, "
            f"got {num_axes}. Ask for fewer."
        )
    centred = (vectors - vectors.mean(dim=0)).double()
    _, axes = torch.linalg.eigh(centred.t() @ centred)
    coordinates = centred @ axes.flip(1)[:, :num_axes]
    # An eigenvector's sign is arbitrary; the entry of largest size is made positive so that builds agree.
    largest = coordinates.abs().argmax(dim=0)
    signs = coordinates[largest, torch.arange(num_axes)].sign()
    whitened: Tensor = coordinates * signs / coordinates.std(dim=0, unbiased=False)
    return whitened.float()


def pca_lookup(vectors: Tensor, embedding_dim: int) -> Tensor:
    """Lookup vectors (V, C): the source's whitened principal axes, rows of norm 1."""
    return F.normalize(whitened_principal_axes(vectors, embedding_dim), dim=1)


def text_lookup(vectors: Tensor, text_vectors: Tensor, embedding_dim: int, ridge: float = 0.1) -> tuple[Tensor, float]:
    """Lookup vectors from the LLM's rows, arranged by meaning.

    Args:
        vectors: (V, C_0) rows of the LLM.
        text_vectors: (V, T) a text encoder's vector of each word.
        embedding_dim: C.
        ridge: Penalty as a share of the mean variance of `vectors`.

    Returns:
        (V, C) rows of norm 1, and R², the share of the text axes' variance that the LLM's rows explain.
    """
    targets = whitened_principal_axes(text_vectors, embedding_dim).double()
    inputs = (vectors - vectors.mean(dim=0)).double()
    covariance = inputs.t() @ inputs / len(inputs)
    penalty = ridge * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    weights = torch.linalg.solve(covariance + penalty, inputs.t() @ targets / len(inputs))
    predicted = inputs @ weights
    r_squared = 1 - (targets - predicted).square().sum() / targets.square().sum()
    return F.normalize(predicted.float(), dim=1), r_squared.item()

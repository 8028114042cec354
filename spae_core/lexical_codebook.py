"""The lexical codebook: words of an LLM, each with the vector the search compares latents with.

Source: arXiv 2306.17842, section on the lexical codebook: C = {(k, e(k)) : k in T}, frozen. The paper takes e(k) from
the LLM; here e(k) may also be its image in a *lookup space* of fewer dimensions, where many more words get used.

Letters: V codebook size, C embedding_dim.
"""

from __future__ import annotations

import hashlib
import json
import struct
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spae_core.errors import ModelError

FORMAT = "spae-codebook/1"


class LexicalCodebook:
    """V words with their LLM ids and vectors.

    Attributes:
        embeddings: float32 (V, C), the vectors that latents are compared with.
        token_ids: The LLM's id of each entry.
        words: The text of each entry, without the marker of a leading space.
        source: The LLM and the lookup space, for people to read.
        settings: How it was built, as plain values; kept with it.
    """

    def __init__(
        self,
        *,
        embeddings: Tensor,
        token_ids: tuple[int, ...],
        words: tuple[str, ...],
        source: str,
        settings: dict[str, str | int | float | bool] | None = None,
    ) -> None:
        if not len(embeddings) == len(token_ids) == len(words):
            raise ModelError(
                f"codebook: expected one vector, one id and one word an entry, got {len(embeddings)}, "
                f"{len(token_ids)} and {len(words)}. Build it again with `spae codebook`."
            )
        if embeddings.ndim != 2:
            raise ModelError(f"codebook: expected vectors (V, C), got {tuple(embeddings.shape)}. Give a row an entry.")
        # Rounded as it is stored, so that a codebook gives the same tokens before and after a round trip.
        self.embeddings = embeddings.half().float()
        if not torch.isfinite(self.embeddings).all():
            raise ModelError(
                "codebook: expected vectors that are finite in float16 (up to 65504), got NaN or infinity. "
                "Build it from intact weights, and normalise them."
            )
        self.token_ids = token_ids
        self.words = words
        self.source = source
        self.settings = settings or {}

    @property
    def codebook_size(self) -> int:
        """V."""
        return len(self.words)

    @property
    def embedding_dim(self) -> int:
        """C."""
        return self.embeddings.shape[1]

    @cached_property
    def sha256(self) -> str:
        """Hash of ids, words and vectors (as stored, float16): what a dataset is bound to."""
        digest = hashlib.sha256(FORMAT.encode())
        digest.update(json.dumps([self.token_ids, self.words], ensure_ascii=False).encode())
        digest.update(self.embeddings.half().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write one safetensors file: vectors as float16, ids as int32, words and origin in the header.

        Equal codebooks give equal bytes.
        """
        header = {
            "format": FORMAT,
            "words": json.dumps(self.words, ensure_ascii=False),
            "source": self.source,
            "settings": json.dumps(self.settings, sort_keys=True),
        }
        tensors = {
            "embeddings": self.embeddings.half().contiguous().cpu(),
            "token_ids": torch.tensor(self.token_ids, dtype=torch.int32),
        }
        path.write_bytes(_with_sorted_header(safetensors.torch.save(tensors, metadata=header)))

    @classmethod
    def load(cls, path: Path) -> LexicalCodebook:
        """Read a codebook that `save` wrote.

        Raises:
            ModelError: If the file is absent, damaged or of another format.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ModelError(
                        f"codebook {path}: expected format {FORMAT}, got {header.get('format')}. "
                        "Build it with `spae codebook`."
                    )
                embeddings, token_ids = file.get_tensor("embeddings"), file.get_tensor("token_ids")
            words, settings, source = json.loads(header["words"]), json.loads(header["settings"]), header["source"]
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"codebook {path}: expected a whole safetensors file, got: {error}. Copy it again."
            ) from error
        except (KeyError, json.JSONDecodeError) as error:
            raise ModelError(
                f"codebook {path}: expected words, source and settings as JSON in its header, got: {error!r}. "
                "Build it with `spae codebook`."
            ) from error
        return cls(
            embeddings=embeddings.float(),
            token_ids=tuple(token_ids.tolist()),
            words=tuple(words),
            source=source,
            settings=settings,
        )


def _with_sorted_header(serialized: bytes) -> bytes:
    """The same safetensors file with the keys of its header in order; the library writes them in a random one."""
    (length,) = struct.unpack("<Q", serialized[:8])
    header = json.dumps(json.loads(serialized[8 : 8 + length]), sort_keys=True, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # the format wants its tensors aligned
    return struct.pack("<Q", len(header)) + header + serialized[8 + length :]

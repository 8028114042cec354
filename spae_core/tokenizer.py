"""Pictures to word pyramids and back: the whole model behind four verbs.

`tokenize` and `detokenize` are the whole way; `encode` and `decode` its continuous halves.

Source: arXiv 2306.17842.

Letters: B batch, C embedding_dim, H×W latent grid, D number of layers, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spae_core.configs import SpaeConfig
from spae_core.decoder import Decoder
from spae_core.encoder import Encoder
from spae_core.errors import ModelError
from spae_core.lexical_codebook import LexicalCodebook
from spae_core.model_files import hash_model, load_model, save_model, serialize_weights
from spae_core.presets import preset
from spae_core.quantizer import StreamingAverageQuantizer
from spae_core.semantic_head import RankedWords
from spae_core.structs import TokenPyramid


class SpaeTokenizer(nn.Module):
    """A SPAE model with its codebook.

    Attributes:
        config: Its settings.
        codebook: Its words.
        word_vectors: (V, C) of the codebook, in which the semantic head ranks words.
    """

    word_vectors: Tensor

    def __init__(self, config: SpaeConfig, codebook: LexicalCodebook) -> None:
        """Build the model with random weights.

        Raises:
            ModelError: If the codebook does not fit the config.
        """
        super().__init__()
        self.config = config
        self.codebook = codebook
        ownership_layers = config.pyramid.num_layers if config.ownership_embedding else 0
        self.encoder = Encoder(config.encoder, config.embedding_dim, ownership_layers)
        self.decoder = Decoder(config.decoder, config.embedding_dim, ownership_layers)
        self.quantizer = StreamingAverageQuantizer(config.quantizer, config.pyramid, codebook, config.embedding_dim)
        self.ranked_words: RankedWords | None = None
        if config.ranked_words is not None:
            self.ranked_words = RankedWords(config.ranked_words, codebook.embedding_dim).eval().requires_grad_(False)
        # Words are ranked where their meaning is laid out, latents are matched where pictures are.
        self.register_buffer("word_vectors", codebook.embeddings, persistent=False)

    @classmethod
    def from_preset(cls, name: str, codebook: LexicalCodebook) -> SpaeTokenizer:
        """Build the preset `name` with random weights; see `spae_core.configs.PRESETS`."""
        return cls(preset(name), codebook)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str | torch.device = "cpu") -> SpaeTokenizer:
        """Load a trained model, ready to use.

        Args:
            name_or_path: A model that comes along (`spae-smol-128`) or a folder written by `save_pretrained`.
            device: Where to put it.

        Raises:
            ModelError: If it is unknown, damaged, or its codebook is another one.
        """
        files = load_model(name_or_path)
        model = cls(files.config, files.codebook)
        own = model.state_dict()
        for name, weight in files.weights.items():
            if name in own and own[name].shape != weight.shape:
                raise ModelError(
                    f"model {name_or_path}: expected {name} of shape {tuple(own[name].shape)} for "
                    f"{files.config.name}, got {tuple(weight.shape)}. Copy the model again."
                )
        absent, unknown = model.load_state_dict(files.weights, strict=False)
        if absent or unknown:
            raise ModelError(
                f"model {name_or_path}: expected the weights of {files.config.name}, got {len(absent)} absent "
                f"(first: {absent[:1]}) and {len(unknown)} unknown (first: {unknown[:1]}). Copy the model again."
            )
        # As stored: hashed again, it would change with every setting that a later version adds.
        model.model_sha256 = files.model_sha256
        return model.eval().to(device)

    def save_pretrained(self, folder: str | Path, training: Mapping[str, Any] | None = None) -> None:
        """Write `config.json`, `model.safetensors` and `codebook.safetensors`; see `baked`."""
        model = self.baked()
        save_model(folder, model.config, model.state_dict(), model.codebook, training)

    def baked(self) -> SpaeTokenizer:
        """The same model with a fixed codebook in place of a trained one; itself when it was not trained.

        A semantic head ranks words in the codebook's own space, so a model with one keeps codebook and projection.
        """
        if not self.quantizer.table_is_trained or self.ranked_words is not None:
            return self
        codebook = LexicalCodebook(
            embeddings=self.quantizer.table().detach(),
            token_ids=self.codebook.token_ids,
            words=self.codebook.words,
            source=f"{self.codebook.source}, trained further",
            settings=self.codebook.settings,
        )
        quantizer = replace(self.config.quantizer, trainable_projection=False, axis_decay=0.0)
        fixed = replace(self.config, quantizer=quantizer)
        model = SpaeTokenizer(fixed, codebook)
        model.load_state_dict({k: v for k, v in self.state_dict().items() if not k.startswith("quantizer.")})
        return model.train(self.training)

    @cached_property
    def model_sha256(self) -> str:
        """Identity of settings and weights as stored; read it when training is over."""
        return hash_model(self.config, serialize_weights(self.state_dict()))

    @property
    def codebook_sha256(self) -> str:
        """Identity of the codebook."""
        return self.codebook.sha256

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.quantizer.entries.device

    def encode(self, images: Tensor) -> Tensor:
        """Map images, float32 (B, 3, S, S) in [0, 1], to latents (B, C, H, W).

        Raises:
            ModelError: If they are of another size or type.
        """
        side = self.config.image_size_px
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side) or images.dtype != torch.float32:
            raise ModelError(
                f"images: expected float32 (B, 3, {side}, {side}) in [0, 1], got {images.dtype} {tuple(images.shape)}. "
                "Resize and crop first, and divide bytes by 255."
            )
        latents: Tensor = self.encoder(images, self.quantizer.subsampler.first_owner)
        return latents

    def decode(self, quantized: Tensor) -> Tensor:
        """Map vectors (B, C, H, W) to images (B, 3, S, S), clamped to [0, 1]."""
        images: Tensor = self.decoder(quantized, self.quantizer.subsampler.first_owner)
        return images.clamp(0, 1)

    def given_words(self, images: Tensor) -> Tensor | None:
        """Entries that the semantic head fixes: int64 (B, D, H, W), −1 elsewhere; None without a head."""
        if self.ranked_words is None:
            return None
        return self.place_words(self.rank_words(images))

    def rank_words(self, images: Tensor) -> Tensor:
        """Words of the semantic head for the top layers, int64 (B, R), layer by layer in raster order.

        Raises:
            ModelError: If the model has no semantic head.
        """
        if self.ranked_words is None or self.config.ranked_words is None:
            raise ModelError(
                f"model {self.config.name}: expected a semantic head, got none. Set ranked_words in its config."
            )
        grids = self.config.pyramid.layer_grids[: self.config.ranked_words.num_layers]
        words: Tensor = self.ranked_words(images, self.word_vectors, grids)
        return words

    def place_words(self, ranked: Tensor) -> Tensor:
        """Lay ranked words (B, R) out in the top layers, raster order: int64 (B, D, H, W), −1 elsewhere."""
        height, width = self.config.pyramid.grid
        given = ranked.new_full((len(ranked), self.config.pyramid.num_layers, height, width), -1)
        start = 0
        for layer, (layer_height, layer_width) in enumerate(self.config.pyramid.layer_grids):
            if start >= ranked.shape[1]:
                break
            words = ranked[:, start : start + layer_height * layer_width]
            given[:, layer] = self.quantizer.subsampler.scatter(words.view(-1, layer_height, layer_width), layer)
            start += layer_height * layer_width
        return given

    @torch.inference_mode()
    def tokenize(self, images: Tensor) -> TokenPyramid:
        """Turn pictures into word pyramids.

        Args:
            images: float32 (B, 3, S, S) in [0, 1].

        Returns:
            All D layers. Equal pictures in batches of equal size give equal tokens.

        Raises:
            ModelError: If the pictures are of another size or type.
        """
        images = images.to(self.device)
        assignment = self.quantizer.assign(self.encode(images), given=self.given_words(images))
        return TokenPyramid(code_indices=self.quantizer.to_layers(assignment.indices), codebook=self.codebook)

    @torch.inference_mode()
    def detokenize(self, pyramid: TokenPyramid, num_layers: int | None = None) -> Tensor:
        """Turn word pyramids back into pictures.

        Args:
            pyramid: Tokens of this model's codebook.
            num_layers: Layers to use, 1 to those present. Default: all present.

        Returns:
            float32 (B, 3, S, S) in [0, 1].

        Raises:
            ModelError: If the pyramid is of another codebook, has fewer layers than asked for, or holds tokens that
                no codebook of this size has.
        """
        if pyramid.codebook.sha256 != self.codebook.sha256:
            raise ModelError(
                f"pyramid: expected tokens of codebook {self.codebook.sha256}, got {pyramid.codebook.sha256}. "
                "Decode with the model that made them."
            )
        indices = tuple(layer.to(self.device) for layer in pyramid.code_indices)
        return self.decode(self.quantizer.lookup(indices, num_layers))

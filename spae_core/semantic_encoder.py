"""The space that pictures and words share: one interface, and CLIP models of open_clip behind it.

ConSE, in `conse_encoder`, is the other implementation. A report names the encoder it used.

Source: Radford et al. 2021 (arXiv 2103.00020), zero-shot classification with 80 prompt templates; arXiv
2306.17842 uses ViT-L/14.

Letters: B batch, H×W pixels, N texts, T feature_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from spae_core.errors import ModelError


@runtime_checkable
class SemanticEncoder(Protocol):
    """Images and words to unit vectors whose inner product is their similarity.

    Attributes:
        name: What a report calls it, such as `conse` or `open_clip:ViT-L-14:openai`.
    """

    name: str

    @property
    def feature_dim(self) -> int:
        """T."""
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to float32 (B, T) of unit norm."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Map N texts to float32 (N, T) of unit norm."""
        ...

    def encode_words(self, words: Sequence[str]) -> Tensor:
        """Map N words to float32 (N, T) of unit norm, in whatever sentences the encoder likes words in."""
        ...


class OpenClipSemanticEncoder:
    """A CLIP model: image tower, text tower, and the 80 templates around a word.

    Args:
        model: An open_clip model.
        tokenizer: Maps texts to token ids (N, context).
        name: For reports.
        image_size_px: Side of the image tower's input.
        mean: Of each channel of its pixels.
        std: Of each channel of its pixels.
        text_batch_size: Texts a forward pass; bounds the memory of `encode_words` too.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - untyped library
        tokenizer: Callable[[list[str]], Tensor],
        *,
        name: str,
        image_size_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        text_batch_size: int = 256,
    ) -> None:
        self.name = name
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._image_size_px = image_size_px
        self._device = next(model.parameters()).device
        self._mean = torch.tensor(mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self._device).view(1, 3, 1, 1)
        self._text_batch_size = text_batch_size

    @classmethod
    def create(
        cls,
        model_name: str = "ViT-L-14",
        pretrained: str | Path | None = "openai",
        *,
        device: str | torch.device = "cpu",
        text_batch_size: int = 256,
    ) -> OpenClipSemanticEncoder:
        """Build a model by open_clip's name, with weights.

        Args:
            model_name: As in open_clip.list_models(). The paper's is ViT-L-14.
            pretrained: A tag that open_clip downloads, a local checkpoint file, or None for random weights
                (tests). OpenAI's weights as a local file want a model name that ends in `-quickgelu`.
            device: Where to compute.
            text_batch_size: Texts a forward pass.

        Returns:
            The encoder.

        Raises:
            ModelError: If the model or tag is unknown, or the weights cannot be had.
        """
        import open_clip  # here: it takes seconds, and most runs never need it

        tag = None if pretrained is None else str(pretrained)
        if model_name not in open_clip.list_models():
            raise ModelError(
                f"open_clip model: expected a name from open_clip.list_models(), got {model_name!r}. Try ViT-L-14."
            )
        known_tags = open_clip.list_pretrained_tags_by_model(model_name)
        if tag is not None and tag not in known_tags and not Path(tag).is_file():
            raise ModelError(
                f"open_clip weights: expected a file or one of {known_tags} for {model_name}, got {tag!r}. "
                "Pass a checkpoint's path or a tag."
            )
        # OpenAI's weights want another GELU than the plain model names have; open_clip only warns.
        tag_settings = open_clip.get_pretrained_cfg(model_name, tag) if tag in known_tags else {}
        try:
            model, _, _ = open_clip.create_model_and_transforms(
                model_name,
                pretrained=tag,
                device=device,
                force_quick_gelu=bool(tag_settings.get("quick_gelu", False)),
            )
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"open_clip weights: expected those of {model_name} at {tag!r}, got "
                f"{str(error).rstrip('.')}. Check the network, or pass the path of a downloaded checkpoint."
            ) from error
        size = model.visual.image_size
        preprocess = open_clip.get_model_preprocess_cfg(model)
        label = "random" if tag is None else Path(tag).name
        return cls(
            model,
            open_clip.get_tokenizer(model_name),
            name=f"open_clip:{model_name}:{label}",
            image_size_px=size[0] if isinstance(size, tuple | list) else size,
            mean=preprocess["mean"],
            std=preprocess["std"],
            text_batch_size=text_batch_size,
        )

    @property
    def feature_dim(self) -> int:
        """T, found by encoding a word once."""
        return self.encode_texts(["a"]).shape[1]

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Resize (bicubic, shorter side), crop the centre, normalise, encode.

        Args:
            images: (B, 3, H, W) in [0, 1], any size.

        Returns:
            float32 (B, T) of unit norm.

        Raises:
            ValueError: If the images are not (B, 3, H, W).
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images: expected (B, 3, H, W), got {tuple(images.shape)}. Pass a batch of RGB images in [0, 1]."
            )
        side = self._image_size_px
        scale = side / min(images.shape[2:])
        height, width = (max(side, round(length * scale)) for length in images.shape[2:])
        resized = F.interpolate(
            images.to(self._device).float(), size=(height, width), mode="bicubic", antialias=True
        ).clamp(0.0, 1.0)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = (resized[:, :, top : top + side, left : left + side] - self._mean) / self._std
        return F.normalize(self._model.encode_image(pixels).float(), dim=1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as they are, in batches.

        Args:
            texts: N texts, cut to the model's context.

        Returns:
            float32 (N, T) of unit norm, on the model's device.

        Raises:
            ValueError: If there is no text.
        """
        if not texts:
            raise ValueError("texts: expected at least one, got none. Pass the words of a codebook.")
        batches = [
            list(texts[start : start + self._text_batch_size]) for start in _starts(texts, self._text_batch_size)
        ]
        return torch.cat([self._encode_text_batch(batch) for batch in batches])

    def encode_words(self, words: Sequence[str]) -> Tensor:
        """Encode each word as the mean of its vectors in 80 templates ("a photo of a cat."), renormalised.

        Args:
            words: N words.

        Returns:
            float32 (N, T) of unit norm, on the model's device.

        Raises:
            ValueError: If there is no word.

        Source: arXiv 2103.00020, section 3.1.4; the templates are open_clip's OPENAI_IMAGENET_TEMPLATES.
        """
        from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

        if not words:
            raise ValueError("words: expected at least one, got none. Pass the words of a codebook.")
        templates: Sequence[Callable[[str], str]] = OPENAI_IMAGENET_TEMPLATES
        words_per_chunk = max(1, self._text_batch_size // len(templates))
        vectors = []
        for start in _starts(words, words_per_chunk):
            chunk = words[start : start + words_per_chunk]
            sentences = [template(word) for word in chunk for template in templates]
            vectors.append(self.encode_texts(sentences).view(len(chunk), len(templates), -1).mean(dim=1))
        return F.normalize(torch.cat(vectors), dim=1)

    def _encode_text_batch(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(texts).to(self._device)
        return F.normalize(self._model.encode_text(tokens).float(), dim=1)


def _starts(items: Sequence[str], step: int) -> range:
    return range(0, len(items), step)

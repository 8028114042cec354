"""ConSE: a picture's text vector from a classifier that knows a thousand names.

The probabilities of the most likely classes weight the text vectors of the class definitions. It stands in
for an image tower of CLIP where none is at hand, and is always reported under its own name.

Source: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014 (arXiv
1312.5650).

Letters: B batch, H×W pixels, K classes, T text_dim, N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from spae_core.efficientnet_lite import INPUT_SIZE_PX, EfficientNetLite0, classifier_state
from spae_core.errors import ModelError
from spae_core.imagenet_classes import imagenet_class_texts
from spae_core.text_encoder import MiniLmTextEncoder, TextEncoder


class ConseImageEncoder(nn.Module):
    """Images to text vectors, with all it needs in its state dict: no text encoder and no file at inference.

    Frozen and always in evaluation mode. Load a state dict before use: the constructor leaves the classifier
    random and the class text vectors zero. A state dict stored as float16 loads into float32.

    Args:
        text_dim: T.
        num_classes: K.
        num_top_classes: How many of the most likely classes count; their probabilities are not rescaled to
            sum to 1, which the final normalisation makes irrelevant.

    Attributes:
        class_text_vectors: (K, T) of unit norm.
    """

    class_text_vectors: Tensor

    def __init__(self, *, text_dim: int = 384, num_classes: int = 1000, num_top_classes: int = 10) -> None:
        super().__init__()
        self.num_top_classes = num_top_classes
        self.classifier = EfficientNetLite0(num_classes)
        self.register_buffer("class_text_vectors", torch.zeros(num_classes, text_dim))
        self.requires_grad_(False)
        self.eval()

    @property
    def text_dim(self) -> int:
        """T."""
        return self.class_text_vectors.shape[1]

    def train(self, mode: bool = True) -> ConseImageEncoder:
        """Stay in evaluation mode whatever the parent module does: the batch norms must not drift."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W) in [0, 1].

        Returns:
            float32 (B, T) of unit norm.

        Raises:
            ValueError: If the images are not (B, 3, H, W).
        """
        return self.mix_class_texts(self.class_probabilities(images))

    def class_probabilities(self, images: Tensor) -> Tensor:
        """Classify images of any size; they are resized to 224×224, the picture's shape not kept.

        Args:
            images: (B, 3, H, W) in [0, 1].

        Returns:
            float32 (B, K), rows sum to 1.

        Raises:
            ValueError: If the images are not (B, 3, H, W).
        """
        return self.local_probabilities(images, [(1, 1)], local_weight=0.0).squeeze(1)

    def local_probabilities(self, images: Tensor, grids: Sequence[tuple[int, int]], *, local_weight: float) -> Tensor:
        """Classify the picture and the regions of one or several grids over it.

        A region's features are averaged and classified like a picture's: the classifier is linear in the mean of its
        last feature map, so that each part of the map says what it adds (class activation maps).

        Args:
            images: (B, 3, H, W) in [0, 1], of any size.
            grids: (h, w) of each grid; (1, 1) is the whole picture.
            local_weight: How much a region counts against the whole, 0 to 1; 0 gives every region the picture's.

        Returns:
            float32 (B, N, K), N regions in the order of the grids, raster inside each; rows sum to 1.

        Raises:
            ValueError: If the images are not (B, 3, H, W).

        Source: Zhou et al., "Learning Deep Features for Discriminative Localization", arXiv 1512.04150.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images: expected (B, 3, H, W), got {tuple(images.shape)}. Pass a batch of RGB images in [0, 1]."
            )
        # float32 whatever surrounds it: the top words of a picture should not depend on autocast.
        with torch.autocast(images.device.type, enabled=False):
            pixels = F.interpolate(
                images.float(), size=(INPUT_SIZE_PX, INPUT_SIZE_PX), mode="bicubic", antialias=True
            ).clamp(0.0, 1.0)
            features = self.classifier.features((pixels * 255.0 - 127.0) / 128.0)
            pooled = [F.adaptive_avg_pool2d(features, grid).flatten(2).transpose(1, 2) for grid in grids]
            regions = self.classifier.classifier(torch.cat(pooled, dim=1)).softmax(dim=-1)
            whole = self.classifier.classifier(features.mean(dim=(2, 3))).softmax(dim=-1)
            blended: Tensor = torch.lerp(whole[:, None].expand_as(regions), regions, local_weight)
            return blended

    def mix_class_texts(self, probabilities: Tensor) -> Tensor:
        """Convex combination of the class texts, scaled to norm 1.

        Args:
            probabilities: (B, K), at least 0.

        Returns:
            float32 (B, T) of unit norm.

        Source: arXiv 1312.5650, equation 3.
        """
        top = probabilities.float().topk(min(self.num_top_classes, probabilities.shape[1]), dim=1)
        mixed = torch.einsum("bk,bkt->bt", top.values, self.class_text_vectors.float()[top.indices])
        return F.normalize(mixed, dim=1)


class ConseSemanticEncoder:
    """Images and words in one space, as CLIP has it, from a classifier and a text encoder.

    Args:
        image_encoder: With weights and class text vectors loaded.
        text_encoder: The one that made the class text vectors.

    Attributes:
        name: `conse`, in every report.

    Raises:
        ModelError: If the two have different widths.
    """

    name = "conse"

    def __init__(self, image_encoder: ConseImageEncoder, text_encoder: TextEncoder) -> None:
        if image_encoder.text_dim != text_encoder.feature_dim:
            raise ModelError(
                f"ConSE: expected a text encoder of width {image_encoder.text_dim}, got "
                f"{text_encoder.feature_dim}. Use the one that made the class text vectors."
            )
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder

    @classmethod
    def from_files(
        cls,
        classifier_path: str | Path,
        text_encoder_folder: str | Path,
        *,
        device: str | torch.device = "cpu",
    ) -> ConseSemanticEncoder:
        """Build both halves from local files and encode the ImageNet class texts once.

        Args:
            classifier_path: EfficientNet-Lite0 weights, safetensors, names of efficientnet-lite-pytorch or of
                timm.
            text_encoder_folder: MiniLM in the transformers layout.
            device: Where to compute.

        Returns:
            The encoder.

        Raises:
            ModelError: If a file is missing or holds something else.
        """
        text_encoder = MiniLmTextEncoder.from_folder(text_encoder_folder, device=device)
        image_encoder = ConseImageEncoder(text_dim=text_encoder.feature_dim)
        try:
            weights = load_file(str(classifier_path))
            image_encoder.classifier.load_state_dict(classifier_state(weights))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ModelError(
                f"classifier weights: expected EfficientNet-Lite0 of 1000 classes in {classifier_path}, got "
                f"{error}. Fetch the asset `efficientnet-lite0` or pass another path."
            ) from error
        image_encoder.class_text_vectors.copy_(text_encoder.encode_texts(imagenet_class_texts()))
        return cls(image_encoder.to(device), text_encoder)

    @property
    def feature_dim(self) -> int:
        """T."""
        return self.image_encoder.text_dim

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to float32 (B, T) of unit norm."""
        vectors: Tensor = self.image_encoder(images)
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Map N texts to float32 (N, T) of unit norm."""
        return self.text_encoder.encode_texts(texts)

    def encode_words(self, words: Sequence[str]) -> Tensor:
        """Map N words to float32 (N, T): as they are, for the text encoder was not trained on captions."""
        return self.text_encoder.encode_texts(words)

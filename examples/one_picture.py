"""A picture to words and back, in Python.

Run: .venv/bin/python examples/one_picture.py [PICTURE] [OUT.png]
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from spae_core.tokenizer import SpaeTokenizer

EXAMPLES = Path(__file__).parent


def read_square(path: Path, size_px: int) -> torch.Tensor:
    """The centre square of a picture as float32 (1, 3, size_px, size_px) in [0, 1]."""
    with Image.open(path) as picture:
        square = ImageOps.fit(ImageOps.exif_transpose(picture).convert("RGB"), (size_px, size_px))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255


def to_picture(image: torch.Tensor) -> Image.Image:
    """float32 (3, H, W) in [0, 1] as a Pillow image."""
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def main() -> None:
    """Print the coarse words and write the original beside what 5 and 6 layers decode to."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES / "photos" / "chelsea.jpg"
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("one_picture.png")

    tokenizer = SpaeTokenizer.from_pretrained("spae-smol-128")
    images = read_square(source, tokenizer.config.image_size_px)
    pyramid = tokenizer.tokenize(images)
    for layer in (1, 2, 3):
        print(f"layer {layer}:", " ".join(pyramid.words(layer)[0]))

    panels = [images[0], *(tokenizer.detokenize(pyramid, num_layers=n)[0] for n in (5, 6))]
    to_picture(torch.cat(panels, dim=2)).save(target)
    print(f"{target}: the original, then from 341 and from 597 words")


if __name__ == "__main__":
    main()

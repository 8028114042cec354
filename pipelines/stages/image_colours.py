"""Any pixel type of Pillow to 8-bit RGB in sRGB: 16-bit grey, palettes, transparency, CMYK, ICC profiles.

It is done in two halves around the resampling. `to_plain_mode` stays in the file's own colour space and gives
up only what cannot be resampled; `to_srgb` follows the ICC profile, on the small picture, at little cost.
"""

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from pipelines.stages.image_faults import ImageFault, UnreadableImageError

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0

_UNSUPPORTED_MODES = {"I": "32-bit or signed integers", "F": "floating point", "LAB": "CIE Lab"}


def to_plain_mode(image: Image.Image) -> Image.Image:
    """Bring a loaded image to 8-bit L, RGB or CMYK without alpha, still in the file's own colour space.

    Args:
        image: As Pillow's plugin gives it, in any mode.

    Returns:
        Mode L, RGB or CMYK, of the same size.

    Raises:
        UnreadableImageError: `UnsupportedPixels`, where nothing says which number is white; `CorruptImage`,
            where a palette is missing.
    """
    if image.mode.startswith("I;16"):
        return _from_16_bit_grey(image)
    if image.mode in _UNSUPPORTED_MODES:
        raise UnreadableImageError(
            ImageFault.UNSUPPORTED_PIXELS,
            f"pixels of the {image.format} file: expected 8 or 16 bits of grey, RGB or CMYK, got"
            f" {_UNSUPPORTED_MODES[image.mode]}. Convert it to 8 bits first.",
        )
    if image.mode == "P" and image.palette is None:
        raise UnreadableImageError(
            ImageFault.CORRUPT_IMAGE,
            f"palette of the {image.format} file: expected one, got none. Fetch the file again.",
        )
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by the ICC profile, or plainly where none fits the pixels.

    Args:
        image: Mode L, RGB or CMYK.
        profile: ICC profile of the file. One that is broken or made for another colour model is ignored, as
            viewers do: the pixels are whole.

    Returns:
        Mode RGB, of the same size.
    """
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.PERCEPTUAL,
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _from_16_bit_grey(image: Image.Image) -> Image.Image:
    """Scale to 8 bits with rounding; what `convert("L")` does to these has changed between releases."""
    samples = np.asarray(image).astype(np.uint32)
    largest = 65535
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = _first_number(image.tag_v2.get(_BITS_PER_SAMPLE), default=16)
        largest = 2 ** min(max(bits, 9), 16) - 1
        if _first_number(image.tag_v2.get(_PHOTOMETRIC), default=1) == _WHITE_IS_ZERO:
            samples = largest - np.minimum(samples, largest)  # Pillow turns these for 8 bits only
    grey = ((np.minimum(samples, largest) * 255 + largest // 2) // largest).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(samples == transparent, np.uint8(255), grey)
    return Image.fromarray(grey)


def _first_number(value: object, *, default: int) -> int:
    """First number of a TIFF tag, which may be a number, a tuple or missing."""
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else default


def _over_white(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        # A 16-bit PNG: Pillow has kept the high bytes of the pixels, but both of the transparent colour.
        image = image.copy()
        image.info["transparency"] = tuple(sample >> 8 for sample in transparent)
    with_alpha = image.convert("RGBA")
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    canvas = Image.new(mode, image.size, "white")
    canvas.paste(with_alpha.convert(mode), mask=with_alpha.getchannel("A"))
    return canvas

"""One encoded image to one small square of RGB: a pure function of the bytes, safe to call from many threads.

Every choice is fixed, so the same bytes give the same pixels with the same decoder (`decoder_version`):

- The content decides the format. The file must be whole (`image_files`); no part is ever guessed.
- Of several frames or pages the first counts; of an animated PNG its still image.
- ICC profiles are followed to sRGB (perceptual intent); a broken one, or one of another colour model, is
  ignored. The gAMA, cHRM and cICP chunks of a PNG are not looked at.
- CMYK JPEGs are read as Adobe writes them, inverted. Grey of 16 bits is rounded to 8, RGB of 16 bits keeps
  its high bytes. Transparency is laid over white.
- The centre square is cut out and resampled in one step, so 1 × 5000 px cost no more than their centre.

A large JPEG is not decoded in full. libjpeg can give it at 1/2, 1/4 or 1/8 of its size, straight from the DCT
coefficients ("draft"), which is several times faster. The smallest of these with a shorter side of at least
3 S is taken and resampled from there; other formats are averaged over whole boxes of pixels down to the same
limit. Against a full decode and one bicubic step this moves a sample by 0.1 to 0.3 of 255 on average and by 5
at most (S = 128; scikit-image's photographs enlarged, and drawn ones, 1.2 to 19 megapixels; with 2 S it was
up to 0.6 and 10). It depends on the stored size alone, so it is as reproducible as the rest. Smaller pictures
get the full decode.

Letters: S is `image_size_px`.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from pipelines.stages.image_colours import to_plain_mode, to_srgb
from pipelines.stages.image_faults import ImageFault, UnreadableImageError
from pipelines.stages.image_files import check_file, ends_early
from pipelines.stages.image_formats import image_format

MAX_PIXELS = 178_956_970
"""Default limit, width × height: 512 MiB of RGB, where Pillow itself speaks of a decompression bomb."""

PREPROCESSING = (
    "first frame; 16-bit scaled to 8; alpha over white; centre square; JPEG by DCT draft and others by box"
    " reduction while the side stays >= 3x; bicubic (a=-0.5, antialiased) to {size}x{size}; ICC to sRGB;"
    " EXIF orientation applied; RGB uint8"
)
"""Wording of the preprocessing for the metadata of a dataset; `preprocessing` fills in the size."""

_REDUCING_GAP = 3  # shorter side left by the fast reductions, in multiples of S

_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
# The classes are called directly, not through `Image.open`: that hides the reason of a failure behind "cannot
# identify image file", and takes its limit of pixels from a global of the process.

# What Pillow raises on bad bytes, by reading its source (release 12) and by fuzzing.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    EOFError,
    AssertionError,  # conditions that Pillow states for its type checker
    AttributeError,  # the same under `python -O`
    TypeError,  # TIFF: tags of a wrong type
    ArithmeticError,  # TIFF: OverflowError from an offset, ZeroDivisionError from a fraction
    RuntimeError,  # AVIF: whatever libavif says
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_TRUNCATED_WORDS = ("truncat", "unexpected end", "end of file", "not enough image data")
_UNSUPPORTED_WORDS = ("cannot handle", "unsupported", "unknown pixel mode", "not supported")

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedImage:
    """One decoded image.

    Attributes:
        pixels: uint8 (S, S, 3), RGB in [0, 255], rows from the top.
        width_px: Width of the whole picture as a viewer shows it, after rotation.
        height_px: Its height.
    """

    pixels: NDArray[np.uint8]
    width_px: int
    height_px: int


def preprocessing(image_size_px: int) -> str:
    """Say in one line how `pixels` came about, for the metadata of a dataset."""
    return PREPROCESSING.format(size=image_size_px)


def decoder_version() -> str:
    """Name the decoder and its libraries with their versions: other ones may give other pixels."""
    libraries = ("libjpeg_turbo", "zlib_ng", "webp", "libtiff", "avif", "littlecms2")
    versions = [f"{name} {features.version(name) or 'none'}" for name in libraries]
    return "; ".join([f"Pillow {PIL.__version__}", *versions])


def decode_image(encoded: bytes, *, image_size_px: int, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image of any supported format to its centre square.

    Args:
        encoded: The whole file: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.
        image_size_px: Side S of the result, >= 1.
        max_pixels: Most pixels, width × height, that the header may declare.

    Returns:
        The square, and the size of the whole picture.

    Raises:
        UnreadableImageError: If the bytes are no image, not a whole one, or too large; `fault` has the class
            and the message what was expected and what was found. Nothing else comes out, whatever the bytes.
    """
    format_name = image_format(encoded)
    declared = check_file(encoded, format_name)
    if declared is not None:
        _check_size(declared, format_name, max_pixels)
    try:
        return _decode(encoded, format_name, image_size_px, max_pixels)
    except MemoryError as error:
        size = f"{declared[0]}x{declared[1]}" if declared else "unknown"
        raise UnreadableImageError(
            ImageFault.OUT_OF_MEMORY,
            f"memory for a {format_name} image of {size} px: expected enough, got a refusal."
            " Decode fewer images at a time or lower max_pixels.",
        ) from error


def _decode(encoded: bytes, format_name: str, image_size_px: int, max_pixels: int) -> DecodedImage:
    try:
        image = _DECODERS[format_name](BytesIO(encoded))
        tile_size = _tile_size(image)
    except _DECODER_ERRORS as error:
        raise _decoder_fault(error, encoded, f"header of the {format_name} file") from error
    _check_size(image.size, format_name, max_pixels)
    if tile_size is not None:  # a small TIFF may ask its decoder for huge tiles
        _check_size(tile_size, f"{format_name} tile", max_pixels)

    width, height = image.size
    draft_side = _REDUCING_GAP * image_size_px
    try:
        drafted = image.draft(None, (draft_side, draft_side)) if format_name == "JPEG" else None
        image.load()
        plain = to_plain_mode(image)
    except UnreadableImageError:
        raise
    except _DECODER_ERRORS as error:
        raise _decoder_fault(error, encoded, f"pixel data of the {format_name} file") from error
    if drafted is None:
        width, height = image.size  # again: Pillow turns a TIFF by its orientation while loading it
    # A draft has rounded its sides up; the picture itself covers the fraction that is in `drafted`.
    right, bottom = drafted[1][2:] if drafted else (width, height)
    side = min(right, bottom)
    left, top = (right - side) / 2, (bottom - side) / 2
    square = plain.resize(
        (image_size_px, image_size_px),
        Image.Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=_REDUCING_GAP,
    )
    square = to_srgb(square, image.info.get("icc_profile"))
    orientation = _orientation(image)
    if orientation in _TRANSPOSE:  # only now: the centre square is the same one, and small
        square = square.transpose(_TRANSPOSE[orientation])
    if orientation >= 5:
        width, height = height, width
    return DecodedImage(pixels=np.asarray(square, dtype=np.uint8), width_px=width, height_px=height)


def _check_size(size: tuple[int, int], what: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImageError(
            ImageFault.EMPTY_IMAGE,
            f"{what} size in the header: expected at least 1x1 px, got {width}x{height}."
            " Take the file out of the inputs.",
        )
    if width * height > max_pixels:
        raise UnreadableImageError(
            ImageFault.IMAGE_TOO_LARGE,
            f"{what} size in the header: expected at most {max_pixels} pixels, got {width}x{height} ="
            f" {width * height}. Scale the image down first or raise max_pixels.",
        )


def _tile_size(image: ImageFile.ImageFile) -> tuple[int, int] | None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, length = image.tag_v2.get(_TILE_WIDTH), image.tag_v2.get(_TILE_LENGTH)
        if isinstance(width, int) and isinstance(length, int):
            return width, length
    return None


def _decoder_fault(error: Exception, encoded: bytes, what: str) -> UnreadableImageError:
    """Put an error of Pillow into our words, with its own as the particulars."""
    reason = f"{type(error).__name__}: {error}".strip(" .:")
    if ends_early(encoded) or any(word in reason.lower() for word in _TRUNCATED_WORDS):
        return UnreadableImageError(
            ImageFault.TRUNCATED_IMAGE,
            f"{what}: expected a whole file, got one that ends after {len(encoded)} bytes ({reason})."
            " Fetch the file again.",
        )
    is_unsupported = any(word in reason.lower() for word in _UNSUPPORTED_WORDS)
    return UnreadableImageError(
        ImageFault.UNSUPPORTED_PIXELS if is_unsupported else ImageFault.CORRUPT_IMAGE,
        f"{what}: expected what its decoder can read, got {reason}. Fetch the file again or convert it.",
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1  # the pixels are whole; a damaged remark beside them is no reason to lose them
    return value if isinstance(value, int) and 1 <= value <= 8 else 1

"""Which format a file is, by its content: the name of a file lies too often to be asked.

What is none of the formats decoded here is named all the same: "an HTML page" tells more than "no image".
"""

import re

from pipelines.stages.image_faults import ImageFault, UnreadableImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are decoded, by Pillow's names. The content decides, never the name of the file."""

_MAGIC: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"RIFF....WEBP", "WEBP"),
        (rb"GIF8[79]a", "GIF"),
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", "BMP"),
        (rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+", "TIFF"),
        (rb"....ftyp(?:avif|avis)|....ftyp(?:mif1|msf1).{0,64}avi[fs]", "AVIF"),
    )
)

_OTHER_IMAGES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name)
    for pattern, name in (
        (rb"....ftyp(?:hei|hev|mif1|msf1)", "HEIF"),
        (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL"),
        (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
        (rb"8BPS", "Photoshop"),
        (rb"\x00\x00\x01\x00", "ICO"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
        (rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!doctype svg[^>]*>\s*)?<svg", "SVG"),
        (rb"P[1-7][\s#]", "Netpbm"),
        (rb"DDS ", "DDS"),
        (rb"\x76\x2f\x31\x01", "OpenEXR"),
        (rb"qoif", "QOI"),
    )
)

_OTHER_FILES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name)
    for pattern, name in (
        (rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)", "an HTML page"),
        (rb"%PDF-", "a PDF document"),
        (rb"version https://git-lfs", "a Git LFS pointer instead of the file"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x1f\x8b", "gzip data"),
        (rb"....ftyp|\x1a\x45\xdf\xa3", "a video"),
        (rb"RIFF....(?:AVI |WAVE)", "a video or sound"),
        (rb"\x00{16}", "zeros"),
        (rb"\s*[{\[]", "JSON"),
        (rb"\s*<", "XML"),
        (rb"[\x09\x0a\x0d\x20-\x7e]{8,}", "text"),
    )
)


def image_format(encoded: bytes) -> str:
    """Tell the format by the first bytes.

    Args:
        encoded: The whole file.

    Returns:
        One of `FORMATS`.

    Raises:
        UnreadableImageError: `EmptyFile`, `UnsupportedFormat` or `NotAnImage`, with what it is instead.
    """
    if not encoded:
        raise UnreadableImageError(
            ImageFault.EMPTY_FILE,
            "encoded image: expected at least 1 byte, got 0 bytes. Fetch the file again.",
        )
    head = encoded[:1024]
    for pattern, name in _MAGIC:
        if pattern.match(head):
            return name
    for pattern, name in _OTHER_IMAGES:
        if pattern.match(head):
            raise UnreadableImageError(
                ImageFault.UNSUPPORTED_FORMAT,
                f"image format: expected one of {', '.join(FORMATS)}, got {name}. Convert it first.",
            )
    what = next((name for pattern, name in _OTHER_FILES if pattern.match(head)), "unknown content")
    raise UnreadableImageError(
        ImageFault.NOT_AN_IMAGE,
        f"content of the file: expected one of {', '.join(FORMATS)}, got {what} ({len(encoded)} bytes,"
        f" beginning {head[:12].hex(' ')}). Fetch the file again or take it out of the inputs.",
    )

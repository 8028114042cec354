"""What can be wrong with an encoded image: the stable classes that quarantine reports group by."""

from enum import StrEnum


class ImageFault(StrEnum):
    """Stable names of the reasons; they are the `error_class` of a quarantine row."""

    EMPTY_FILE = "EmptyFile"
    """No bytes at all."""

    NOT_AN_IMAGE = "NotAnImage"
    """The content is something else: HTML, PDF, text, an archive, noise."""

    UNSUPPORTED_FORMAT = "UnsupportedFormat"
    """An image, but of a format that is not decoded here: SVG, HEIC, JPEG XL, EPS."""

    UNSUPPORTED_PIXELS = "UnsupportedPixels"
    """A known format, but pixels with no agreed way to 8-bit RGB: float, 32-bit integers, 12-bit JPEG."""

    TRUNCATED_IMAGE = "TruncatedImage"
    """The file ends before the picture does."""

    CORRUPT_IMAGE = "CorruptImage"
    """The bytes contradict themselves: a wrong checksum, a broken stream, noise after a good header."""

    EMPTY_IMAGE = "EmptyImage"
    """The header promises a picture of no width or no height."""

    IMAGE_TOO_LARGE = "ImageTooLarge"
    """More pixels than allowed, by the header alone: nothing was decoded."""

    OUT_OF_MEMORY = "OutOfMemory"
    """The image is within the limit but this machine could not hold it."""


class UnreadableImageError(ValueError):
    """An encoded image that cannot be decoded.

    Attributes:
        fault: The class of the reason; the message has the particulars.
    """

    def __init__(self, fault: ImageFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple[ImageFault, str]]:
        """Both arguments travel between processes, not the message alone."""
        return type(self), (self.fault, str(self))

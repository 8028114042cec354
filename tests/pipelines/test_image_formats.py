import pytest
from pictures import whole_pictures

from pipelines.stages.image_faults import UnreadableImageError
from pipelines.stages.image_formats import FORMATS, image_format


def test_the_format_is_told_by_the_content_for_every_format():
    seen = {image_format(encoded) for encoded in whole_pictures().values()}
    assert seen == set(FORMATS)


@pytest.mark.parametrize(
    ("content", "fault", "named"),
    [
        (b"", "EmptyFile", "0 bytes"),
        (b"  <html>", "NotAnImage", "an HTML page"),
        (b"%PDF-1.4", "NotAnImage", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1", "NotAnImage", "Git LFS pointer"),
        (b'{"error": "gone"}', "NotAnImage", "JSON"),
        (b"BM, and then some text", "NotAnImage", "text"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00", "NotAnImage", "a video"),
        (b"<svg xmlns='...'>", "UnsupportedFormat", "SVG"),
        (b"\xff\x0a\x00\x00", "UnsupportedFormat", "JPEG XL"),
        (b"%!PS-Adobe-3.0 EPSF", "UnsupportedFormat", "PostScript"),
        (b"\x00\x00\x00\x20ftypmif1\x00\x00\x00\x00mif1heic", "UnsupportedFormat", "HEIF"),
    ],
)
def test_what_is_no_picture_is_named(content: bytes, fault: str, named: str):
    with pytest.raises(UnreadableImageError, match=named) as refusal:
        image_format(content)
    assert refusal.value.fault.value == fault

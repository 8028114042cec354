import struct

import pytest
from pictures import encode, photo, png, png_chunk, whole_pictures

from pipelines.stages.image_faults import UnreadableImageError
from pipelines.stages.image_files import check_file, ends_early
from pipelines.stages.image_formats import image_format


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


START, END = b"\xff\xd8", b"\xff\xd9"
FRAME = jpeg_segment(0xC0, bytes([8, 0, 40, 0, 60, 1, 1, 0x11, 0]))
SCAN = jpeg_segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
RESTARTS = jpeg_segment(0xDD, b"\x00\x01")


@pytest.mark.parametrize("name", sorted(whole_pictures()))
def test_whole_files_pass_with_their_size(name: str):
    encoded = whole_pictures(48, 40)[name]
    assert check_file(encoded, image_format(encoded)) in ((48, 40), None)
    assert not ends_early(encoded)


def test_the_sizes_of_all_three_kinds_of_webp_are_read():
    image = photo(33, 21)
    alpha = image.copy()
    alpha.putalpha(120)
    lossy, lossless = encode(image, "WEBP"), encode(image, "WEBP", lossless=True)
    extended = encode(alpha, "WEBP", exif=b"Exif\x00\x00")
    assert [encoded[12:16] for encoded in (lossy, lossless, extended)] == [b"VP8 ", b"VP8L", b"VP8X"]
    for encoded in (lossy, lossless, extended):
        assert check_file(encoded, "WEBP") == (33, 21)


@pytest.mark.parametrize(("format_name", "options"), [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
def test_a_tiff_ends_early_if_a_strip_or_the_directory_is_cut(format_name: str, options: dict[str, str]):
    # Uncompressed, Pillow writes the directory before the strips; compressed, libtiff writes it after them.
    whole = encode(photo(33, 21), format_name, **options)
    assert not ends_early(whole)
    assert ends_early(whole[: len(whole) // 2])
    assert ends_early(whole[:6])


def test_a_gif_ends_early_without_its_trailer():
    whole = encode(photo(33, 21).quantize(16), "GIF")
    assert not ends_early(whole)
    assert ends_early(whole[: len(whole) // 2])


def test_a_png_checksum_is_compared_in_every_chunk():
    whole = png(4, 4, 8, 0, bytes(16), png_chunk(b"tEXt", b"a\x00b"))
    for kind in (b"IHDR", b"tEXt", b"IDAT"):
        changed = bytearray(whole)
        changed[whole.index(kind) + 4] ^= 1
        with pytest.raises(UnreadableImageError, match=rf"\({kind.decode()}\): expected checksum"):
            check_file(bytes(changed), "PNG")


def test_a_cut_png_is_told_with_the_chunk_and_its_place():
    whole = png(4, 4, 8, 0, bytes(16))
    with pytest.raises(UnreadableImageError, match="of IDAT from byte 33, got the end of the file after 50"):
        check_file(whole[:50], "PNG")


@pytest.mark.parametrize(
    "body",
    [
        FRAME + SCAN + b"\x12\xff\x00\x34" + END,
        FRAME + SCAN + b"\x12\x34" + b"\xff\xff\xff\xd9",  # fill bytes before a marker are legal
        RESTARTS + FRAME + SCAN + b"\x12\xff\xd0\x34\xff\xd1\x56" + END,
        FRAME + SCAN + b"\x12" + jpeg_segment(0xC4, bytes(20)) + SCAN + b"\x34" + END,
        jpeg_segment(0xE1, FRAME[:4] + bytes([8, 0, 1, 0, 1]) + END) + FRAME + SCAN + b"\x12" + END,
        FRAME + SCAN + b"\x12" + END + b"\xff\x01 whatever follows",
    ],
    ids=["stuffed", "filled", "restarts", "two_scans", "thumbnail_within", "trailing"],
)
def test_legal_jpeg_structures_pass(body: bytes):
    assert check_file(START + body, "JPEG") == (60, 40)


@pytest.mark.parametrize(
    ("body", "fault", "message"),
    [
        (FRAME + SCAN + b"\x12\x34", "TruncatedImage", "expected an end-of-image marker"),
        (FRAME[:6], "TruncatedImage", "of segment ff c0 from byte 4"),
        (FRAME + SCAN + b"\x12\xff\x21\x34" + END, "CorruptImage", "got ff 21"),
        (FRAME + SCAN + b"\x12\xff\xd0\x34" + END, "CorruptImage", "got ff d0"),  # restarts were not declared
        (FRAME + SCAN + b"\x12\xff\xc4\xee\xee" + END, "CorruptImage", "length of the JPEG segment ff c4"),
        (END, "CorruptImage", "a frame header"),
    ],
    ids=["no_end", "cut_segment", "illegal_marker", "undeclared_restart", "absurd_table", "no_frame"],
)
def test_illegal_jpeg_structures_are_refused_with_the_place(body: bytes, fault: str, message: str):
    with pytest.raises(UnreadableImageError, match=message) as refusal:
        check_file(START + body, "JPEG")
    assert refusal.value.fault.value == fault

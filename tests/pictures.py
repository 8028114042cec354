"""Good, odd and bad image files, built in memory, for every test that needs some.

`picture_cases()` is the list of what bad and odd input gets: name, bytes, and the expected outcome.
"""

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

DECODED = "decoded"


class PictureCase(NamedTuple):
    """One file.

    `outcome` is `DECODED` or the error class it is quarantined with. `centre_rgb` is the colour expected in
    the middle of a decoded one (None: not checked), to within 6 of 255.
    """

    name: str
    encoded: bytes
    outcome: str
    centre_rgb: tuple[int, int, int] | None = None


def photo(width_px: int, height_px: int, seed: int = 0) -> Image.Image:
    """Something like a photograph: gradients, a few edges, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px]
    channels = [
        128 + 90 * np.sin(x / width_px * rng.uniform(3, 9) + rng.uniform(0, 6)) * np.cos(y / height_px * 5 + k)
        for k in range(3)
    ]
    pixels = np.stack(channels, axis=-1)
    pixels[(x - width_px * 0.4) ** 2 + (y - height_px * 0.5) ** 2 < (0.2 * height_px) ** 2] += 60
    pixels += rng.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photos(folder: Path, num_photos: int, *, first_seed: int = 0) -> Path:
    """So many small photographs, `0.png` …, and `broken.png`, which is none."""
    folder.mkdir()
    for index in range(num_photos):
        (folder / f"{index}.png").write_bytes(encode(photo(40, 50, seed=first_seed + index), "PNG"))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its right checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width_px: int, height_px: int, bit_depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand; `rows` are unfiltered samples without the filter bytes."""
    header = struct.pack(">IIBBBBB", width_px, height_px, bit_depth, colour_type, 0, 0, 0)
    stride = len(rows) // height_px if height_px else 0
    filtered = b"".join(b"\x00" + rows[row * stride : (row + 1) * stride] for row in range(height_px))
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(filtered))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def bomb_headers(side_px: int = 50_000) -> dict[str, bytes]:
    """Files of a few hundred bytes that declare a square of `side_px`, by format."""
    small = Image.new("L", (8, 8), 128)
    bombs = {"PNG": png(side_px, side_px, 8, 0, b"")}
    jpeg = bytearray(encode(small, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side_px, side_px)
    bombs["JPEG"] = bytes(jpeg)
    bmp = bytearray(encode(small, "BMP"))
    bmp[18:26] = struct.pack("<ii", side_px, side_px)
    bombs["BMP"] = bytes(bmp)
    gif = bytearray(encode(small, "GIF"))
    gif[6:10] = struct.pack("<HH", side_px, side_px)
    bombs["GIF"] = bytes(gif)
    tiff = bytearray(encode(small, "TIFF"))
    for tag in (256, 257):
        entry = tiff.index(struct.pack("<HHI", tag, 4, 1))
        tiff[entry + 8 : entry + 12] = struct.pack("<I", side_px)
    bombs["TIFF"] = bytes(tiff)
    webp = bytearray(encode(Image.new("RGBA", (8, 8), (1, 2, 3, 4)), "WEBP", exif=b"Exif\x00\x00"))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = (side_px - 1).to_bytes(3, "little") * 2
    bombs["WEBP"] = bytes(webp)
    avif = bytearray(encode(small, "AVIF"))
    ispe = avif.index(b"ispe")
    avif[ispe + 8 : ispe + 16] = struct.pack(">II", side_px, side_px)
    bombs["AVIF"] = bytes(avif)
    return bombs


@functools.cache
def whole_pictures(width_px: int = 48, height_px: int = 40) -> dict[str, bytes]:
    """One small whole file of each format and of the variants that take other paths in the decoder."""
    image = photo(width_px, height_px)
    alpha = image.copy()
    alpha.putalpha(image.convert("L"))
    return {
        "jpeg": encode(image, "JPEG", quality=90),
        "jpeg_progressive": encode(image, "JPEG", progressive=True),
        "jpeg_restarts": encode(image, "JPEG", restart_marker_blocks=1),
        "jpeg_cmyk": encode(image.convert("CMYK"), "JPEG"),
        "png": encode(image, "PNG"),
        "png_palette": encode(image.quantize(16), "PNG", transparency=3),
        "png_grey16": encode(Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257), "PNG"),
        "png_interlaced_alpha": encode(alpha, "PNG"),
        "webp": encode(image, "WEBP"),
        "webp_lossless_alpha": encode(alpha, "WEBP", lossless=True),
        "gif": encode(image.quantize(32), "GIF"),
        "bmp": encode(image, "BMP"),
        "bmp_palette": encode(image.quantize(16), "BMP"),
        "tiff": encode(image, "TIFF"),
        "tiff_lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff_jpeg": encode(image, "TIFF", compression="jpeg"),
        "avif": encode(image, "AVIF", speed=10),
    }


def picture_cases() -> list[PictureCase]:
    """Every way in which a picture is known to be odd or bad, with what must happen to it."""
    return [*odd_pictures(), *bad_pictures()]


@functools.cache
def odd_pictures() -> tuple[PictureCase, ...]:
    """Files that look wrong at first and must be decoded rightly."""
    red = Image.new("RGB", (60, 40), (200, 40, 40))
    cases: list[PictureCase] = []

    def add(name: str, encoded: bytes, centre_rgb: tuple[int, int, int] | None) -> None:
        cases.append(PictureCase(name, encoded, DECODED, centre_rgb))

    for name, encoded in whole_pictures().items():
        add(f"whole_{name}", encoded, None)
    add("png_called_jpg.jpg", encode(red, "PNG"), (200, 40, 40))
    add("jpeg_called_png.png", encode(red, "JPEG", quality=95), (200, 40, 40))
    add("cmyk_jpeg", encode(Image.new("CMYK", (40, 40), (0, 200, 200, 30)), "JPEG", quality=95), (225, 48, 48))
    add("cmyk_tiff", encode(Image.new("CMYK", (40, 40), (0, 200, 200, 30)), "TIFF"), (225, 48, 48))
    add("ycck_jpeg", ycck_jpeg(), (225, 48, 48))
    add("grey16_png", png(8, 8, 16, 0, struct.pack(">H", 0x8080) * 64), (128, 128, 128))
    add("grey16_dark_png", png(8, 8, 16, 0, struct.pack(">H", 300) * 64), (1, 1, 1))
    add("grey16_tiff", encode(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "TIFF"), (156, 156, 156))
    add("rgb16_png", png(8, 8, 16, 2, struct.pack(">HHH", 0xC800, 0x2800, 0x0100) * 64), (200, 40, 1))
    add("rgba16_png", png(8, 8, 16, 6, struct.pack(">HHHH", 0xC800, 0x2800, 0x0100, 0) * 64), (255, 255, 255))
    key = struct.pack(">HHH", 0xC800, 0x2800, 0x0100)
    add("rgb16_transparent_png", png(8, 8, 16, 2, key * 64, png_chunk(b"tRNS", key)), (255, 255, 255))
    add("palette_transparent_gif", encode(Image.new("P", (8, 8), 0), "GIF", transparency=0), (255, 255, 255))
    add("palette_transparent_png", encode(Image.new("P", (8, 8), 0), "PNG", transparency=0), (255, 255, 255))
    half = Image.new("RGBA", (8, 8), (200, 40, 40, 128))
    add("half_transparent_png", encode(half, "PNG"), (227, 147, 147))
    add("grey_alpha_png", encode(Image.new("LA", (8, 8), (100, 0)), "PNG"), (255, 255, 255))
    add("bilevel_png", encode(Image.new("1", (9, 9), 1), "PNG"), (255, 255, 255))
    blue = Image.new("RGB", (60, 40), (30, 40, 200))
    for format_name in ("GIF", "WEBP", "PNG", "AVIF", "TIFF"):
        options = {} if format_name == "TIFF" else {"duration": 50}
        animated = encode(red, format_name, save_all=True, append_images=[blue, red], **options)
        add(f"several_frames_{format_name.lower()}", animated, (200, 40, 40))
    gif = encode(red, "GIF", save_all=True, append_images=[blue, photo(60, 40)], duration=50)
    add("gif_cut_after_the_first_frame", gif[:-400], (200, 40, 40))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"orientation_{orientation}_jpeg", encode(red, "JPEG", exif=exif, quality=95), (200, 40, 40))
    add("broken_exif_jpeg", encode(red, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", quality=95), None)
    add("broken_icc_jpeg", encode(red, "JPEG", icc_profile=b"no profile", quality=95), (200, 40, 40))
    add("broken_icc_png", encode(red, "PNG", icc_profile=b"no profile" * 20), (200, 40, 40))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    add("icc_of_another_colour_model", encode(red, "PNG", icc_profile=lab), (200, 40, 40))
    add("one_pixel", encode(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), (9, 8, 7))
    add("very_tall", encode(Image.new("RGB", (1, 5000), (9, 80, 7)), "PNG"), (9, 80, 7))
    add("very_wide_jpeg", encode(Image.new("L", (5000, 1), 70), "JPEG"), (70, 70, 70))
    add("bytes_after_the_end_jpeg", encode(red, "JPEG", quality=95) + b"\xff\xd8 more", (200, 40, 40))
    add("bytes_after_the_end_png", encode(red, "PNG") + b"more", (200, 40, 40))
    return tuple(cases)


@functools.cache
def bad_pictures() -> tuple[PictureCase, ...]:
    """Files that must be quarantined, with the class of the reason."""
    image = photo(120, 90)
    jpeg, png_file = encode(image, "JPEG", quality=90), encode(image, "PNG")
    cases: list[PictureCase] = []

    def add(name: str, encoded: bytes, outcome: str) -> None:
        cases.append(PictureCase(name, encoded, outcome))

    add("zero_bytes", b"", "EmptyFile")
    for percent in (2, 20, 60, 95):
        add(f"truncated_jpeg_{percent}", jpeg[: len(jpeg) * percent // 100], "TruncatedImage")
        add(f"truncated_png_{percent}", png_file[: len(png_file) * percent // 100], "TruncatedImage")
    add("jpeg_without_its_last_byte", jpeg[:-1], "TruncatedImage")
    add("png_without_its_last_byte", png_file[:-1], "TruncatedImage")
    for name in ("webp", "gif", "bmp", "tiff", "avif"):
        whole = encode(image, name.upper())
        add(f"truncated_{name}", whole[: len(whole) * 6 // 10], "TruncatedImage")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        whole = encode(image, "TIFF", compression=compression)
        add(f"truncated_{compression}", whole[: len(whole) * 6 // 10], "TruncatedImage")
    add("html_called_jpg.jpg", b"<!DOCTYPE html><html><body>404 not found</body></html>", "NotAnImage")
    add("text_called_jpg.jpg", b"The picture you asked for has moved.\n", "NotAnImage")
    add("pdf_called_jpg.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "NotAnImage")
    add("zeros", bytes(4096), "NotAnImage")
    add("noise", np.random.default_rng(5).bytes(4096), "NotAnImage")
    add("svg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "UnsupportedFormat")
    add("heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "UnsupportedFormat")
    add("ppm", encode(image, "PPM"), "UnsupportedFormat")
    for name, header in bomb_headers().items():
        add(f"header_of_50000x50000_{name.lower()}", header, "ImageTooLarge")
    add("zero_wide_png", png(0, 10, 8, 0, b""), "EmptyImage")
    add("zero_high_jpeg", _with_jpeg_size(jpeg, 120, 0), "EmptyImage")
    wrong_sum = bytearray(png_file)
    wrong_sum[len(png_file) // 2] ^= 0x10
    add("palette_png_without_a_palette", png(4, 4, 8, 3, bytes(16)), "CorruptImage")
    add("wrong_checksum_png", bytes(wrong_sum), "CorruptImage")
    scan = jpeg.index(b"\xff\xda") + 12
    noise = np.random.default_rng(6).bytes(len(jpeg) - scan)
    add("noise_after_a_jpeg_header", jpeg[:scan] + noise, "CorruptImage")
    add("noise_after_a_png_header", png_file[:33] + noise, "CorruptImage")
    webp = encode(image, "WEBP")
    add(
        "noise_after_a_webp_header",
        webp[:30] + noise.ljust(len(webp), b"\x55")[: len(webp) - 30],
        "CorruptImage",
    )
    avif = encode(image, "AVIF")
    pixels = avif.index(b"mdat") + 4
    add("zeros_after_an_avif_header", avif[:pixels] + bytes(len(avif) - pixels), "CorruptImage")
    add("float_tiff", encode(Image.new("F", (8, 8), 0.5), "TIFF"), "UnsupportedPixels")
    add("int32_tiff", encode(Image.new("I", (8, 8), 70_000), "TIFF"), "UnsupportedPixels")
    twelve_bits = bytearray(jpeg)
    twelve_bits[jpeg.index(b"\xff\xc0") + 4] = 12
    add("jpeg_of_12_bits", bytes(twelve_bits), "UnsupportedPixels")
    return tuple(cases)


def ycck_jpeg() -> bytes:
    """A CMYK (0, 200, 200, 30) JPEG as Photoshop writes it: inverted inks, three of them as YCC, transform 2.

    YCCK is the YCC of 255 minus the stored inks; the stored ones being inverted, that is the YCC of the inks.
    Pillow writes no YCCK, but it is four plain components like CMYK: they are saved as they are, and the
    Adobe marker is changed to say what they mean.
    """
    inks = Image.new("RGB", (40, 40), (0, 200, 200)).convert("YCbCr")
    planes = [*inks.split(), Image.new("L", (40, 40), 255 - 30)]
    # Pillow inverts CMYK when it saves; invert before so that the planes arrive as they are.
    cmyk = Image.merge("CMYK", [plane.point(lambda value: 255 - value) for plane in planes])
    encoded = bytearray(encode(cmyk, "JPEG", quality=100, subsampling=0))
    adobe = encoded.index(b"Adobe")
    encoded[adobe + 11] = 2
    return bytes(encoded)


def _with_jpeg_size(jpeg: bytes, width_px: int, height_px: int) -> bytes:
    changed = bytearray(jpeg)
    frame = jpeg.index(b"\xff\xc0")
    changed[frame + 5 : frame + 9] = struct.pack(">HH", height_px, width_px)
    return bytes(changed)

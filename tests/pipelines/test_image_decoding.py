import io
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import DECODED, PictureCase, encode, photo, picture_cases, png, whole_pictures
from PIL import Image, ImageCms, ImageFile

from pipelines.stages.image_decoding import decode_image, decoder_version, preprocessing
from pipelines.stages.image_faults import UnreadableImageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

CASES = picture_cases()
WHOLE = whole_pictures(24, 20)
ROOT = Path(__file__).parents[2]


def outcome_of(encoded: bytes, image_size_px: int = 32) -> str:
    try:
        decode_image(encoded, image_size_px=image_size_px)
    except UnreadableImageError as error:
        return error.fault.value
    return DECODED


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_odd_or_bad_picture_is_decoded_rightly_or_refused_with_its_reason(case: PictureCase):
    if case.outcome == DECODED:
        decoded = decode_image(case.encoded, image_size_px=32)
        assert decoded.pixels.shape == (32, 32, 3)
        if case.centre_rgb is not None:
            np.testing.assert_allclose(decoded.pixels[16, 16].astype(int), case.centre_rgb, atol=6)
    else:
        with pytest.raises(UnreadableImageError, match=r"^[^:]+: expected .+, got .+\. .+\.$") as refusal:
            decode_image(case.encoded, image_size_px=32)
        assert refusal.value.fault.value == case.outcome


def test_truncated_files_are_never_filled_up():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_cut_file_is_refused_or_gives_the_very_same_pixels(name: str):
    whole = WHOLE[name]
    expected = decode_image(whole, image_size_px=16).pixels
    cuts = sorted({*range(0, len(whole), max(1, len(whole) // 40)), *range(len(whole) - 6, len(whole))})
    num_refused = 0
    for cut in cuts:
        try:
            decoded = decode_image(whole[:cut], image_size_px=16)
        except UnreadableImageError:
            num_refused += 1
        else:
            np.testing.assert_array_equal(decoded.pixels, expected, err_msg=f"cut at byte {cut}")
    assert num_refused >= len(cuts) - 2  # a GIF without its trailer is whole enough


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
    more=st.binary(max_size=40),
)
def test_no_bytes_bring_anything_out_but_pixels_or_a_reason(
    name: str, changes: list[tuple[float, int]], kept: float, more: bytes
):
    changed = bytearray(WHOLE[name])
    for position, value in changes:
        changed[int(position * len(changed))] = value
    encoded = bytes(changed[: int(kept * len(changed))]) + more
    try:
        decoded = decode_image(encoded, image_size_px=8, max_pixels=1_000_000)
    except UnreadableImageError:
        return
    assert decoded.pixels.shape == (8, 8, 3)


@settings(deadline=None)
@given(noise=st.binary(max_size=200))
def test_noise_is_never_a_picture(noise: bytes):
    assert outcome_of(noise) != DECODED


def test_a_picture_of_2x2_pixels_comes_through_untouched():
    red, green, blue, grey = (255, 0, 0), (0, 255, 0), (0, 0, 255), (7, 8, 9)
    encoded = png(2, 2, 8, 2, bytes([*red, *green, *blue, *grey]))

    decoded = decode_image(encoded, image_size_px=2)

    assert decoded.pixels.tolist() == [[list(red), list(green)], [list(blue), list(grey)]]
    assert (decoded.width_px, decoded.height_px) == (2, 2)


def test_the_centre_square_is_cut_out():
    columns = bytes(value for _ in range(2) for x in (10, 20, 30, 40) for value in (x, x, x))
    decoded = decode_image(png(4, 2, 8, 2, columns), image_size_px=2)

    assert decoded.pixels[:, :, 0].tolist() == [[20, 30], [20, 30]]
    assert (decoded.width_px, decoded.height_px) == (4, 2)


def bicubic_matrix(num_in: int, num_out: int) -> np.ndarray:
    """Weights (num_out, num_in) of an antialiased bicubic (a = -0.5), from its definition, entry by entry."""
    scale = num_in / num_out
    support = max(scale, 1.0)
    weights = np.zeros((num_out, num_in))
    for target in range(num_out):
        centre = (target + 0.5) * scale
        for source in range(num_in):
            t = abs((source + 0.5 - centre) / support)
            if t < 1:
                weights[target, source] = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                weights[target, source] = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("width_px", "height_px"), [(90, 60), (41, 57), (20, 20)])
def test_resampling_equals_a_bicubic_written_from_its_definition(width_px: int, height_px: int):
    image = photo(width_px, height_px)
    side = min(width_px, height_px)
    along, down = bicubic_matrix(side, 32), bicubic_matrix(side, 32)
    pixels = np.asarray(image, np.float64)
    left, top = (width_px - side) // 2, (height_px - side) // 2
    if (width_px - side) % 2 or (height_px - side) % 2:
        pytest.fail("choose sizes whose centre square lies on whole pixels")
    square = pixels[top : top + side, left : left + side]
    across = np.einsum("ts,ysc->ytc", along, square).round().clip(0, 255)
    expected = np.einsum("ts,sxc->txc", down, across).round().clip(0, 255)

    got = decode_image(encode(image, "PNG"), image_size_px=32).pixels

    if width_px == height_px:
        np.testing.assert_allclose(got, expected, atol=1)
    else:  # pixels just beyond the cut still weigh on its border
        np.testing.assert_allclose(got[4:-4, 4:-4], expected[4:-4, 4:-4], atol=1)


@pytest.mark.parametrize(("format_name", "options"), [("JPEG", {"quality": 92}), ("PNG", {})])
@pytest.mark.parametrize(("width_px", "height_px"), [(1001, 803), (640, 400)])
def test_the_fast_reduction_stays_close_to_a_full_decode(
    format_name: str, options: dict[str, int], width_px: int, height_px: int
):
    encoded = encode(photo(width_px, height_px, seed=4), format_name, **options)
    left, top, side = (width_px - height_px) / 2, 0.0, float(height_px)
    slow = Image.open(io.BytesIO(encoded)).convert("RGB")
    box = (left, top, left + side, top + side)
    expected = np.asarray(slow.resize((64, 64), Image.Resampling.BICUBIC, box=box), np.int16)

    difference = np.abs(decode_image(encoded, image_size_px=64).pixels - expected)

    assert difference.mean() < 0.5
    assert difference.max() <= 6


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(format_name: str, orientation: int):
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format_name, {})
    image = photo(48, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a[::-1].transpose(1, 0, 2),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    upright = decode_image(encode(image, format_name, **options), image_size_px=32)

    decoded = decode_image(encode(image, format_name, exif=exif, **options), image_size_px=32)

    np.testing.assert_allclose(decoded.pixels.astype(int), turned(upright.pixels).astype(int), atol=1)
    expected_size = (48, 32) if orientation < 5 else (32, 48)
    assert (decoded.width_px, decoded.height_px) == expected_size


def test_16_bit_grey_is_scaled_and_rounded_not_clipped():
    samples = np.arange(65536, dtype=">u2").reshape(256, 256)
    decoded = decode_image(png(256, 256, 16, 0, samples.tobytes()), image_size_px=256)

    expected = np.round(samples.astype(np.float64) / 257).astype(int)
    assert np.array_equal(decoded.pixels[:, :, 1], expected)


def test_a_white_is_zero_tiff_of_16_bits_is_not_a_negative():
    encoded = bytearray(encode(Image.fromarray(np.full((8, 8), 60_000, np.uint16)), "TIFF"))
    entry = encoded.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01")  # tag 262, photometric interpretation
    encoded[entry + 8] = 0
    assert decode_image(bytes(encoded), image_size_px=4).pixels[0, 0, 0] == round((65535 - 60_000) / 257)


def test_an_icc_profile_is_followed():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    red = Image.new("RGB", (8, 8), (200, 0, 0))

    as_is = decode_image(encode(red, "PNG", icc_profile=profile), image_size_px=4).pixels[0, 0]
    through_swapped = decode_image(encode(red, "PNG", icc_profile=swapped), image_size_px=4).pixels[0, 0]

    np.testing.assert_allclose(as_is.astype(int), (200, 0, 0), atol=1)
    np.testing.assert_allclose(through_swapped.astype(int), (0, 0, 200), atol=2)


def test_the_limit_on_pixels_is_the_last_size_allowed():
    encoded = encode(photo(30, 20), "PNG")
    decode_image(encoded, image_size_px=8, max_pixels=600)
    with pytest.raises(UnreadableImageError, match="at most 599 pixels, got 30x20 = 600"):
        decode_image(encoded, image_size_px=8, max_pixels=599)


def test_eight_threads_and_one_decode_to_the_same_pixels():
    files = [case.encoded for case in CASES if case.outcome == DECODED] * 2
    alone = [decode_image(encoded, image_size_px=32).pixels for encoded in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda encoded: decode_image(encoded, image_size_px=32).pixels, files))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which Linux alone enforces")
def test_a_bomb_is_refused_without_memory_and_a_lack_of_memory_is_told():
    script = textwrap.dedent(
        """
        import resource
        from pictures import bomb_headers, encode, photo, png
        from pipelines.stages.image_decoding import decode_image
        from pipelines.stages.image_faults import UnreadableImageError

        files = {**bomb_headers(), "large": png(12_000, 12_000, 1, 0, bytes(1_500 * 12_000))}
        decode_image(encode(photo(30, 20), "PNG"), image_size_px=32)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
        for name, encoded in files.items():
            try:
                decode_image(encoded, image_size_px=32)
            except UnreadableImageError as error:
                print(name, error.fault.value)
        """
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    outcomes = dict(line.split() for line in done.stdout.splitlines())
    assert outcomes.pop("large") == "OutOfMemory"
    assert len(outcomes) == 7
    assert set(outcomes.values()) == {"ImageTooLarge"}


def test_preprocessing_and_decoder_say_what_a_reader_needs_to_repeat_them():
    assert "bicubic" in preprocessing(96)
    assert "96x96" in preprocessing(96)
    assert decoder_version().startswith("Pillow ")
    assert "libjpeg_turbo" in decoder_version()

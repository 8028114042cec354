"""One picture to crops: how many, from where, upright, on white, and a reason where there are none."""

import numpy as np
import pytest
from pictures import encode, photo
from PIL import Image

from pipelines.errors import UsageError
from pipelines.training.crop_cutting import CropConfig, cut_picture, from_webp, to_webp

CONFIG = CropConfig(image_size_px=16, min_crops=3, max_crops=9, crops_per_megapixel=600.0)


def test_a_larger_picture_gives_more_crops_within_the_bounds():
    # 600 a megapixel: 40×40 px ask for 1 and get 3, 100×100 get 6, 200×200 ask for 24 and get 9.
    for side, number in ((40, 3), (100, 6), (200, 9)):
        content = encode(photo(side, side), "PNG")
        crops, reason = cut_picture(f"{side}.png", content, CONFIG)
        assert (len(crops), reason) == (number, None)


def test_the_first_crop_is_the_whole_centre_square():
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = (250, 120, 30)  # the square in the middle; the black beside it bleeds in by a pixel or two
    content = encode(Image.fromarray(pixels), "PNG")
    crops, _ = cut_picture("wide.png", content, CONFIG)
    assert (crops[0][:, 2:-2] == (250, 120, 30)).all()
    assert crops[0][..., 0].min() > 200


def test_a_crop_is_never_cut_smaller_than_it_will_be():
    # Columns of single pixels: a crop of fewer than 16 would have to be blown up and would not alternate.
    pixels = np.zeros((16, 40, 3), np.uint8)
    pixels[:, ::2] = 255
    content = encode(Image.fromarray(pixels), "PNG")
    crops, _ = cut_picture("stripes.png", content, CropConfig(image_size_px=16, min_crops=8))
    for crop in crops:
        assert set(np.unique(crop)) == {0, 255}
        assert (crop[:, :-1] != crop[:, 1:]).all()


def test_transparent_parts_are_white_and_half_transparent_ones_lighter():
    for name, image, colour in (
        ("clear.png", Image.new("RGBA", (20, 20), (200, 0, 0, 0)), (255, 255, 255)),
        ("half.png", Image.new("RGBA", (20, 20), (200, 40, 40, 128)), (227, 147, 147)),
        ("grey.png", Image.new("LA", (20, 20), (100, 0)), (255, 255, 255)),
        ("opaque.png", Image.new("RGBA", (20, 20), (200, 40, 40, 255)), (200, 40, 40)),
    ):
        crops, reason = cut_picture(name, encode(image, "PNG"), CONFIG)
        assert reason is None
        assert np.abs(crops.astype(int) - colour).max() <= 1, name
    palette = encode(Image.new("P", (20, 20), 0), "GIF", transparency=0)
    assert (cut_picture("palette.gif", palette, CONFIG)[0] == 255).all()


def test_a_turned_picture_is_cut_upright():
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255  # white above; turned a quarter clockwise the white is on the right
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(Image.fromarray(pixels), "PNG", exif=exif)
    first = cut_picture("turned.png", content, CONFIG)[0][0]
    assert first[:, 12:].min() > 200
    assert first[:, :4].max() < 50


def test_every_nth_frame_of_an_animated_picture_is_used():
    frames = [Image.new("RGB", (20, 20), (20 * index, 0, 0)) for index in range(10)]
    content = encode(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=50)
    crops, reason = cut_picture("animated.png", content, CropConfig(image_size_px=16, min_crops=2, frame_step=4))
    assert reason is None
    assert crops[:, 8, 8, 0].tolist() == [0, 0, 80, 80, 160, 160]


def test_a_stored_crop_is_close_to_its_pixels_and_smaller():
    crop = np.asarray(photo(128, 128))
    stored = to_webp(crop, 85)
    error = np.square(from_webp(stored).astype(float) - crop).mean()
    assert error < 65025 / 10**3.5  # 35 dB
    assert len(stored) < crop.nbytes / 4
    assert len(to_webp(crop, 50)) < len(stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_crops": 0}, "min_crops ≤ max_crops, got 128, 8, 0 and 120"),
        ({"min_crops": 5, "max_crops": 4}, "got 128, 8, 5 and 4"),
        ({"image_size_px": 0}, "got 0, 8, 4 and 120"),
        ({"min_scale": 0.0}, "got 0.0 and 85"),
        ({"webp_quality": 101}, "got 0.12 and 101"),
    ],
)
def test_settings_that_cut_nothing_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        CropConfig(**changes)

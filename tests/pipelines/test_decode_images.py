import hashlib
import pickle
import warnings

import numpy as np
import pyarrow as pa
import pytest
from pictures import DECODED, encode, photo, picture_cases

from pipelines.stages.decode_images import DecodeImages
from pipelines.stages.image_decoding import decode_image
from pipelines.stages.image_faults import ImageFault, UnreadableImageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

CASES = picture_cases()


def batch_of(files: list[bytes | None], **more: list[object]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "sample_id": pa.array([f"id-{row}" for row in range(len(files))], pa.string()),
            "uri": pa.array([f"folder/{row}.jpg" for row in range(len(files))], pa.string()),
            "bytes": pa.array(files, pa.large_binary()),
            **{name: pa.array(values) for name, values in more.items()},
        }
    )


def test_bad_pictures_leave_their_neighbours_untouched_and_every_row_is_accounted_for():
    # Good and bad ones in turns, so that every bad one has a good neighbour on both sides.
    good = [case for case in CASES if case.outcome == DECODED]
    bad = [case for case in CASES if case.outcome != DECODED]
    mixed = [case for pair in zip(good, bad, strict=False) for case in pair]
    mixed += good[len(bad) :] + bad[len(good) :]

    result = DecodeImages(image_size_px=32).run(batch_of([case.encoded for case in mixed]))

    good_rows = [row for row, case in enumerate(mixed) if case.outcome == DECODED]
    assert result.batch["sample_id"].to_pylist() == [f"id-{row}" for row in good_rows]
    assert [(row.sample_id, row.error_class) for row in result.rejected] == [
        (f"id-{row}", case.outcome) for row, case in enumerate(mixed) if case.outcome != DECODED
    ]
    for pixels, row in zip(result.batch["pixels"].to_pylist(), good_rows, strict=True):
        alone = decode_image(mixed[row].encoded, image_size_px=32)
        assert pixels == alone.pixels.tobytes()


def test_the_columns_are_those_declared_and_hold_what_they_say():
    encoded = encode(photo(60, 40), "PNG")
    stage = DecodeImages(image_size_px=16)

    batch = stage.run(batch_of([encoded])).batch

    assert batch.schema == stage.output_schema
    assert batch["content_sha256"].to_pylist() == [hashlib.sha256(encoded).hexdigest()]
    assert (batch["width_px"][0].as_py(), batch["height_px"][0].as_py()) == (60, 40)
    pixels = np.frombuffer(batch["pixels"][0].as_py(), np.uint8).reshape(16, 16, 3)
    np.testing.assert_array_equal(pixels, decode_image(encoded, image_size_px=16).pixels)


def test_other_columns_pass_through_beside_their_own_rows():
    good = encode(photo(20, 20), "PNG")
    batch = batch_of([good, b"", good], label=[7, 8, 9], caption=["a", "b", None])

    result = DecodeImages(image_size_px=8).run(batch)

    assert result.batch.schema.names[-2:] == ["label", "caption"]
    assert result.batch["label"].to_pylist() == [7, 9]
    assert result.batch["caption"].to_pylist() == ["a", None]
    assert "bytes" not in result.batch.schema.names


def test_a_rejected_row_says_where_it_is_and_what_was_expected():
    (row,) = DecodeImages().run(batch_of([b"<html>gone</html>"])).rejected
    assert (row.sample_id, row.uri, row.stage) == ("id-0", "folder/0.jpg", "decode_images")
    assert row.error_class == "NotAnImage"
    assert "expected one of JPEG, PNG" in row.message
    assert "got an HTML page" in row.message


def test_bytes_that_could_not_be_had_are_rejected_like_an_empty_file():
    (row,) = DecodeImages().run(batch_of([None])).rejected
    assert row.error_class == "EmptyFile"
    assert "got null" in row.message


@pytest.mark.parametrize("files", [[], [b"", b"no picture"]], ids=["no_rows", "all_bad"])
def test_a_batch_without_a_good_row_keeps_its_schema(files: list[bytes]):
    stage = DecodeImages()
    result = stage.run(batch_of(files))
    assert result.batch.num_rows == 0
    assert result.batch.schema == stage.output_schema
    assert len(result.rejected) == len(files)


def test_two_runs_give_the_same_batch_and_the_same_messages():
    batch = batch_of([case.encoded for case in CASES])
    first, second = DecodeImages(image_size_px=24).run(batch), DecodeImages(image_size_px=24).run(batch)
    assert first.batch.equals(second.batch)
    assert first.rejected == second.rejected


def test_a_batch_without_bytes_is_a_fault_of_the_program():
    with pytest.raises(TypeError, match="'bytes' of stage decode_images: expected large_binary"):
        DecodeImages().run(batch_of([b""]).drop_columns(["bytes"]))


def test_the_stage_pickles_with_its_settings():
    stage = DecodeImages(image_size_px=64, max_pixels=1000, batch_size=4)
    copy = pickle.loads(pickle.dumps(stage))
    assert copy == stage
    assert copy.resources.batch_size == 4


def test_a_reason_survives_the_way_between_processes():
    error = UnreadableImageError(ImageFault.CORRUPT_IMAGE, "a: expected b, got c. d.")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.fault, str(copy)) == (ImageFault.CORRUPT_IMAGE, "a: expected b, got c. d.")


@pytest.mark.parametrize("settings", [{"image_size_px": 0}, {"max_pixels": 0}])
def test_sizes_that_no_picture_can_have_are_refused(settings: dict[str, int]):
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        DecodeImages(**settings)


def test_setup_silences_remarks_on_damaged_metadata():
    case = next(case for case in CASES if case.name == "broken_exif_jpeg")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DecodeImages(image_size_px=8).run(batch_of([case.encoded]))
        assert caught  # Pillow does remark
        caught.clear()
        stage = DecodeImages(image_size_px=8)
        stage.setup()
        stage.run(batch_of([case.encoded]))
        assert not caught

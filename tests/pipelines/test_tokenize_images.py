import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.bisection import run_isolating
from pipelines.errors import UsageError
from pipelines.stages.tokenize_images import TokenizeImages
from spae_core.tokenizer import SpaeTokenizer

SIDE = 32


def pixels(num_pictures: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_pictures, SIDE, SIDE, 3), dtype=np.uint8)


def batch(pictures: np.ndarray) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "sample_id": pa.array([f"{number}" for number in range(len(pictures))], pa.string()),
            "pixels": pa.array([picture.tobytes() for picture in pictures], pa.binary()),
            "width_px": pa.array([640] * len(pictures), pa.int32()),
        }
    )


@pytest.fixture
def stage(tiny_model_dir) -> TokenizeImages:
    tokenizer = SpaeTokenizer.from_pretrained(tiny_model_dir)
    return TokenizeImages(model=str(tiny_model_dir), model_sha256=tokenizer.model_sha256, num_layers=4, batch_size=5)


def test_tokens_are_those_of_the_model_in_raster_order(stage, tiny_model_dir):
    stage.setup()
    pictures = pixels(5)
    result = stage.run(batch(pictures)).batch
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    pyramid = SpaeTokenizer.from_pretrained(tiny_model_dir).tokenize(images)
    for layer, indices in enumerate(pyramid.code_indices):
        assert result[f"tokens_{layer}"].to_pylist() == indices.flatten(1).tolist()


def test_tokens_do_not_depend_on_neighbours_order_batch_or_threads(stage):
    pictures = pixels(5)
    alone = [stage.run(batch(pictures[row : row + 1])).batch["tokens_3"][0].as_py() for row in range(5)]
    assert stage.run(batch(pictures)).batch["tokens_3"].to_pylist() == alone
    assert stage.run(batch(pictures[::-1])).batch["tokens_3"].to_pylist() == alone[::-1]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(num_threads, 2))
    assert stage.run(batch(pictures)).batch["tokens_3"].to_pylist() == alone
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("num_pictures", [1, 3, 5])
def test_the_model_always_sees_one_batch_shape(stage, num_pictures):
    shapes = []
    stage._tokenizer.encoder.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    assert stage.run(batch(pixels(num_pictures))).batch.num_rows == num_pictures
    assert shapes == [(5, 3, SIDE, SIDE)]


def test_other_columns_are_passed_through_and_pixels_end(stage):
    result = stage.run(batch(pixels(2)))
    assert result.batch.schema.names == [*("sample_id", "width_px", "tokens_0", "tokens_1", "tokens_2", "tokens_3")]
    assert result.rejected == ()
    assert stage.run(batch(pixels(0))).batch.schema == result.batch.schema


def test_fewer_layers_are_the_first_ones(stage, tiny_model_dir):
    two = TokenizeImages(model=str(tiny_model_dir), model_sha256="", num_layers=2, batch_size=5)
    short = two.run(batch(pixels(3))).batch
    assert "tokens_2" not in short.schema.names
    assert short["tokens_1"].equals(stage.run(batch(pixels(3))).batch["tokens_1"])


def test_other_weights_than_planned_are_refused_with_both_hashes(stage, tiny_model_dir):
    other = TokenizeImages(model=str(tiny_model_dir), model_sha256="0" * 64, num_layers=4)
    with pytest.raises(UsageError, match=f"expected weights of sha256 {'0' * 64}, got {stage.model_sha256}"):
        other.setup()


def test_it_pickles_without_its_model(stage):
    stage.setup()
    data = pickle.dumps(stage)
    assert len(data) < 2000
    assert pickle.loads(data) == stage


def test_pixels_of_another_size_are_a_poison_row(stage):
    with pytest.raises(ValueError, match="reshape"):
        stage.run(pa.record_batch({"pixels": pa.array([b"123"], pa.binary())}))


class SmallDevice(TokenizeImages):
    """A stage whose device has room for some pictures only, and counts what it was asked for."""

    room = 10

    def to_device(self, images):
        self.__dict__.setdefault("asked", []).append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(images)} pictures")
        return super().to_device(images)


def small_device(stage: TokenizeImages, **changes: object) -> SmallDevice:
    fields = {"model": stage.model, "model_sha256": stage.model_sha256, "num_layers": 4, "batch_size": 5}
    return SmallDevice(**{**fields, "batches_per_block": 4, **changes})


def test_out_of_memory_halves_the_block_for_the_rest_of_the_run_and_changes_no_token(stage):
    pictures = pixels(20)
    small = small_device(stage)
    assert small.resources.batch_size == 20
    expected = [stage.run(batch(pictures[start : start + 5])).batch["tokens_3"].to_pylist() for start in (0, 5, 10, 15)]
    assert small.run(batch(pictures)).batch["tokens_3"].to_pylist() == [row for rows in expected for row in rows]
    assert small.asked == [20, 10, 10]
    assert small.run(batch(pictures)).batch["tokens_3"].to_pylist() == [row for rows in expected for row in rows]
    assert small.asked == [20, 10, 10, 10, 10]


def test_memory_that_comes_back_at_the_smallest_block_is_tried_again(stage):
    class Busy(SmallDevice):
        @property
        def room(self):
            return 10 if len(self.asked) > 3 else 0

    fields = {"model": stage.model, "model_sha256": stage.model_sha256, "num_layers": 4, "batch_size": 5}
    busy = Busy(**fields, batches_per_block=4)
    assert busy.run(batch(pixels(7))).batch["tokens_1"].equals(stage.run(batch(pixels(7))).batch["tokens_1"])
    assert busy.asked == [10, 5, 5, 5, 5]


def test_a_device_without_room_for_one_batch_is_a_clear_error_and_no_quarantine(stage):
    class Full(SmallDevice):
        room = 4

    fields = {"model": stage.model, "model_sha256": stage.model_sha256, "num_layers": 4, "batch_size": 5}
    with pytest.raises(UsageError, match=r"got 5 pictures\. Free the device, or use --batch-size 2"):
        run_isolating(Full(**fields), batch(pixels(3)))


def test_the_model_sees_one_shape_only_however_many_pictures_come(stage):
    seen = []
    stage._tokenizer.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    for num_pictures in (1, 5, 7, 20):
        stage.run(batch(pixels(num_pictures)))
    assert set(seen) == {(5, 3, SIDE, SIDE)}
    assert len(seen) == 1 + 1 + 2 + 4

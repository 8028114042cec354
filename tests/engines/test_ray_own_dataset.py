import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pictures import encode, photo
from runs import write_pictures

from pipelines.engines.ray_data import RayOptions, tokenize_dataset
from pipelines.errors import UsageError
from pipelines.stages.image_decoding import decode_image

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("ray_cluster")
def test_each_row_keeps_its_columns_and_gets_the_tokens_of_its_picture(tiny_tokenizer, tiny_model_dir):
    import ray.data

    encoded = [encode(photo(60, 40, seed), "PNG") for seed in range(5)]
    encoded[2] = b"garbage"
    table = pa.table({"photo": pa.array(encoded, pa.binary()), "sample_id": [7, 7, 7, 8, 9], "uri": list("abcde")})
    dataset = ray.data.from_arrow(table).repartition(2)
    rows = tokenize_dataset(
        dataset,
        model=str(tiny_model_dir),
        image_column="photo",
        num_layers=2,
        options=RayOptions(max_actors=1),
    ).take_all()
    rows.sort(key=lambda row: row["uri"])
    assert [(row["sample_id"], row["uri"]) for row in rows] == list(zip([7, 7, 7, 8, 9], "abcde", strict=True))
    assert [row["rejected_class"] for row in rows] == [None, None, "NotAnImage", None, None]
    assert rows[2]["tokens_0"] is None
    side = tiny_tokenizer.config.image_size_px
    for row, data in zip(rows, encoded, strict=True):
        assert "photo" not in row
        if row["rejected_class"] is None:
            pixels = decode_image(data, image_size_px=side).pixels
            images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().div(255)
            pyramid = tiny_tokenizer.tokenize(images)
            for layer in range(2):
                assert list(row[f"tokens_{layer}"]) == pyramid.code_indices[layer].flatten().tolist()
            assert (row["width_px"], row["height_px"]) == (60, 40)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"photo": [b"x"]}, {}, "expected one of the dataset's columns .photo., got 'bytes'"),
        ({"bytes": [b"x"], "tokens_1": [1]}, {}, "got tokens_1"),
        ({"bytes": [b"x"]}, {"num_layers": 99}, "num_layers: expected 1 to"),
        (
            {"bytes": [b"x"]},
            {"device": "cuda", "gpus_per_actor": 1.0, "options": RayOptions(min_actors=3)},
            "3 x 1 GPU",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(tiny_model_dir, columns, options, message):
    import ray.data

    dataset = ray.data.from_arrow(pa.table(columns))
    with pytest.raises(UsageError, match=message):
        tokenize_dataset(dataset, model=str(tiny_model_dir), **options)


def test_the_example_tells_each_picture_and_leaves_out_what_is_none(tiny_model_dir, ray_cluster, tmp_path):
    photos = write_pictures(tmp_path / "photos", 3)
    (photos / "notes.txt").write_text("no picture")
    command = [sys.executable, "examples/ray_own_dataset.py", str(photos), str(tiny_model_dir)]
    # On the cluster that is there: starting another one takes seconds.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ray_cluster}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if ": " in line]
    assert lines[0] == "notes.txt: left out, NotAnImage"
    assert [line.split(":")[0] for line in lines[1:]] == [f"picture-00{number}.png" for number in range(3)]
    assert all(len(line.split()) == 2 + 1 + 4 for line in lines[1:])

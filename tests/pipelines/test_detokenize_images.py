import re

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.errors import UsageError
from pipelines.stages.detokenize_images import DetokenizeImages
from schemas.tokens import token_fields
from spae_core.structs import TokenPyramid
from spae_core.tokenizer import SpaeTokenizer

GRIDS = (1, 2, 4, 4)


@pytest.fixture
def tokenizer(tiny_model_dir) -> SpaeTokenizer:
    return SpaeTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def make_stage(tiny_model_dir, tokenizer):
    def make(**options: object) -> DetokenizeImages:
        settings = {
            "model": str(tiny_model_dir),
            "model_sha256": tokenizer.model_sha256,
            "codebook_sha256": tokenizer.codebook_sha256,
            "num_layers": 4,
            "batch_size": 4,
        }
        return DetokenizeImages(**{**settings, **options})

    return make


def layers(num_rows: int, codebook_size: int = 64) -> list[list[list[int] | None]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, codebook_size, (num_rows, side * side)).tolist() for side in GRIDS]


def batch(tokens: list[list[list[int] | None]]) -> pa.RecordBatch:
    ids = [f"{number}" for number in range(len(tokens[0]))]
    types = [pa.list_(pa.int32()) for _ in token_fields(len(tokens))]
    arrays = [pa.array(column, type_) for column, type_ in zip(tokens, types, strict=True)]
    return pa.RecordBatch.from_arrays(
        [pa.array(ids), pa.array([f"/{i}.jpg" for i in ids]), *arrays],
        names=["sample_id", "uri", *(f"tokens_{layer}" for layer in range(len(tokens)))],
    )


@pytest.mark.parametrize("num_layers", [1, 3, 4])
def test_pictures_are_those_of_the_model(make_stage, tokenizer, num_layers):
    tokens = layers(3)
    result = make_stage(num_layers=num_layers).run(batch(tokens)).batch
    padded = [torch.tensor([*column, [0] * len(column[0])]) for column in tokens]
    pyramid = TokenPyramid(
        code_indices=tuple(c.view(4, side, side) for c, side in zip(padded, GRIDS, strict=True)),
        codebook=tokenizer.codebook,
    )
    images = tokenizer.detokenize(pyramid, num_layers=num_layers)[:3]
    expected = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    assert result["pixels"].to_pylist() == [picture.numpy().tobytes() for picture in expected]


def test_a_picture_does_not_depend_on_its_neighbours(make_stage):
    tokens = layers(4)
    stage = make_stage()
    together = stage.run(batch(tokens)).batch["pixels"].to_pylist()
    alone = [stage.run(batch(tokens).slice(row, 1)).batch["pixels"][0].as_py() for row in range(4)]
    assert alone == together


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([64, 0, 0, 0], r"layer 1: expected code indices in \[0, 64\), got 64"),
        ([0, -1, 0, 0], r"got -1"),
        ([0, None, 0, 0], r"got -1"),
        ([0, 0, 0], r"layer 1: expected 4 tokens, got 3"),
        (None, r"layer 1: expected 4 tokens, got 0"),
    ],
)
def test_a_row_with_bad_tokens_is_rejected_and_its_neighbours_are_not(make_stage, wrong, reason):
    tokens = layers(3)
    good = make_stage().run(batch(tokens)).batch
    tokens[1][1] = wrong
    result = make_stage().run(batch(tokens))
    assert result.batch["sample_id"].to_pylist() == ["0", "2"]
    assert result.batch["pixels"].to_pylist() == good["pixels"].take(pa.array([0, 2])).to_pylist()
    (row,) = result.rejected
    assert (row.sample_id, row.error_class) == ("1", "BadTokens")
    assert re.search(reason, row.message)


@pytest.mark.parametrize(("name", "what"), [("codebook_sha256", "codebook"), ("model_sha256", "weights")])
def test_tokens_of_another_model_are_refused_with_both_hashes(make_stage, tokenizer, name, what):
    with pytest.raises(UsageError, match=f"{what} of model .*{'0' * 64}.*got {getattr(tokenizer, name)}"):
        make_stage(**{name: "0" * 64}).setup()


def test_more_layers_than_the_model_has_are_refused(make_stage):
    with pytest.raises(UsageError, match=r"expected 1 to 4 of model .*, got 5"):
        make_stage(num_layers=5).setup()

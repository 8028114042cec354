import pickle
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pytest

from pipelines.stages.stage import Resources, Stage, StageResult


@dataclass(frozen=True, kw_only=True)
class Upper(Stage):
    """Spells words in capitals, with something that does not pickle."""

    name = "upper"

    suffix: str = "!"

    @property
    def input_schema(self) -> pa.Schema:
        return pa.schema([("word", pa.string())])

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema([("shout", pa.string())])

    def setup(self) -> None:
        _ = self._model

    def run(self, batch: pa.RecordBatch) -> StageResult:
        self.check_input(batch)
        return StageResult(batch=pa.record_batch({"shout": [self._model(word.as_py()) for word in batch["word"]]}))

    @cached_property
    def _model(self):
        return lambda word: word.upper() + self.suffix


def test_a_stage_that_was_set_up_pickles_unbuilt():
    stage = Upper(suffix="?")
    stage.setup()
    again = pickle.loads(pickle.dumps(stage))
    assert again == stage
    assert "_model" not in again.__dict__
    assert again.run(pa.record_batch({"word": ["hey"]})).batch.to_pydict() == {"shout": ["HEY?"]}


@pytest.mark.parametrize(("batch", "got"), [({"other": ["x"]}, "no such column"), ({"word": [1]}, "int64")])
def test_a_batch_without_the_declared_columns_is_refused(batch, got):
    with pytest.raises(TypeError, match=f"'word' of stage upper: expected string, got {got}"):
        Upper().run(pa.record_batch(batch))


def test_columns_a_stage_neither_needs_nor_makes_are_passed_through():
    batch = pa.record_batch({"label": [1], "word": ["x"], "shout": ["Y"], "caption": ["c"]})
    assert Upper().passed_through(batch) == ("label", "caption")


@pytest.mark.parametrize("wrong", [{"num_cpus": 0}, {"gpu_fraction": 1.5}, {"batch_size": 0}])
def test_resources_nobody_can_give_are_refused(wrong):
    with pytest.raises(ValueError, match="resources of a stage"):
        Resources(**wrong)

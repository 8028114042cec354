from dataclasses import dataclass

import pyarrow as pa
import pytest
from crashing_stages import SCHEMA, StageOfIds

from pipelines.bisection import run_isolating
from pipelines.stages.stage import RejectedRow, StageResult
from spae_core.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Poisonable(StageOfIds):
    """Raises on any batch that holds a poisoned row, and rejects rows it knows to be bad."""

    name = "poisonable"

    poison: tuple[str, ...] = ()
    known_bad: tuple[str, ...] = ()
    error: type[Exception] = RuntimeError

    def run(self, batch: pa.RecordBatch) -> StageResult:
        self.calls.append(batch.num_rows)
        ids = batch["sample_id"].to_pylist()
        if set(ids) & set(self.poison):
            raise self.error("poison")
        good = batch.filter(pa.array([sample_id not in self.known_bad for sample_id in ids], pa.bool_()))
        rejected = tuple(
            RejectedRow(sample_id=i, uri=i, stage=self.name, error_class="Known", message="bad")
            for i in ids
            if i in self.known_bad
        )
        return StageResult(batch=good, rejected=rejected)

    @property
    def calls(self) -> list[int]:
        return self.__dict__.setdefault("_calls", [])


def rows(num_rows: int) -> pa.RecordBatch:
    ids = [f"{number:02d}" for number in range(num_rows)]
    return pa.record_batch({"sample_id": ids, "uri": [f"/{i}" for i in ids]}, schema=SCHEMA)


def test_one_poison_row_in_64_costs_one_row():
    stage = Poisonable(poison=("17",))
    result = run_isolating(stage, rows(64))
    expected = [f"{number:02d}" for number in range(64) if number != 17]
    assert result.batch["sample_id"].to_pylist() == expected
    (rejected,) = result.rejected
    assert (rejected.sample_id, rejected.uri, rejected.stage) == ("17", "/17", "poisonable")
    assert (rejected.error_class, rejected.message) == ("RuntimeError", "poison")


def test_halving_takes_about_two_runs_a_level():
    stage = Poisonable(poison=("17",))
    run_isolating(stage, rows(64))
    assert len(stage.calls) <= 2 * 6 + 2


def test_known_and_unknown_bad_rows_are_both_told():
    stage = Poisonable(poison=("00", "07"), known_bad=("03",))
    result = run_isolating(stage, rows(8))
    assert result.batch["sample_id"].to_pylist() == ["01", "02", "04", "05", "06"]
    assert sorted((row.sample_id, row.error_class) for row in result.rejected) == [
        *(("00", "RuntimeError"), ("03", "Known"), ("07", "RuntimeError"))
    ]


def test_a_batch_of_nothing_but_poison_gives_an_empty_batch():
    result = run_isolating(Poisonable(poison=("00", "01", "02")), rows(3))
    assert result.batch.num_rows == 0
    assert result.batch.schema == SCHEMA
    assert len(result.rejected) == 3


@pytest.mark.parametrize("error", [TypeError, AttributeError, KeyboardInterrupt, ModelError])
def test_faults_of_the_program_and_of_the_model_are_not_blamed_on_rows(error):
    with pytest.raises(error):
        run_isolating(Poisonable(poison=("01",), error=error), rows(4))

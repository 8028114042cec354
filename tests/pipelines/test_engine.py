"""What engines report: rows rejected, the stage that held a run up, and that the local engine is one of them."""

import inspect

import pytest

from pipelines.engine import COMMIT, Engine, EngineReport, Progress
from pipelines.engines.local import LocalEngine
from schemas.manifest import StageTiming


def report(num_processed: int = 10, **stages: StageTiming) -> EngineReport:
    return EngineReport(parts=(), failures={}, num_processed=num_processed, wall_seconds=1.0, stages=stages)


def test_rejected_rows_are_the_sum_over_all_reasons():
    assert Progress(num_done=9, reasons={"decode/TruncatedImage": 2, "read/NotFound": 3}).num_rejected == 5
    assert Progress(num_done=9, reasons={}).num_rejected == 0
    assert Progress(num_done=9, reasons={}).committed is None


def test_the_bottleneck_is_the_stage_whose_workers_were_busy_longest():
    timings = {
        "decode": StageTiming(wait_seconds=0.0, busy_seconds=8.0, num_workers=4),
        "tokenize": StageTiming(wait_seconds=0.0, busy_seconds=3.0, num_workers=1),
        COMMIT: StageTiming(wait_seconds=0.0, busy_seconds=1.0, num_workers=1),
    }
    assert report(**timings).bottleneck == "tokenize"
    assert (
        report(**(timings | {"decode": StageTiming(wait_seconds=0.0, busy_seconds=20.0, num_workers=4)})).bottleneck
        == "decode"
    )


def test_a_run_that_processed_nothing_has_no_bottleneck():
    assert report(0, decode=StageTiming(wait_seconds=0.0, busy_seconds=0.0, num_workers=4)).bottleneck is None
    assert report(0).bottleneck is None


@pytest.mark.parametrize("engine", [LocalEngine])
def test_an_engine_has_the_one_verb_with_the_same_arguments(engine):
    wanted, found = (inspect.signature(kind.run_shards).parameters for kind in (Engine, engine))
    assert list(found) == list(wanted)

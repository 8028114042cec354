import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.engine import Progress
from pipelines.errors import UsageError
from pipelines.metrics_file import MetricsFile
from schemas.manifest import StageTiming

STAGES = {
    "decode_images": StageTiming(busy_seconds=4.0, wait_seconds=0.0, num_workers=4, idle_seconds=12.0),
    "tokenize_images": StageTiming(busy_seconds=3.0, wait_seconds=1.0, num_workers=1),
}


def values(path) -> dict[tuple, float]:
    families = text_string_to_metric_families(path.read_text())
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_prometheus_can_read_every_number(tmp_path):
    metrics = MetricsFile(path=tmp_path / "spae.prom", num_planned=100)
    metrics.update(Progress(num_done=12, reasons={"read_inputs/FileTooLarge": 2}, stages=STAGES))
    found = values(tmp_path / "spae.prom")
    assert found[("spae_rows_planned",)] == 100
    assert found[("spae_rows_done",)] == 12
    assert found[("spae_rows_quarantined", "FileTooLarge", "read_inputs")] == 2
    assert found[("spae_stage_seconds", "decode_images", "idle")] == 12.0
    assert found[("spae_bottleneck", "tokenize_images")] == 1
    assert found[("spae_pictures_per_second",)] > 0


def test_it_is_not_written_at_every_step_but_at_the_end(tmp_path):
    metrics = MetricsFile(path=tmp_path / "spae.prom", num_planned=9)
    for num_done in range(5):
        metrics.update(Progress(num_done=num_done, reasons={}))
    assert values(tmp_path / "spae.prom")[("spae_rows_done",)] == 0
    metrics.write(num_done=9, reasons={}, stages={})
    assert values(tmp_path / "spae.prom")[("spae_rows_done",)] == 9


def test_a_place_that_cannot_be_written_to_is_a_clear_error(tmp_path):
    metrics = MetricsFile(path=tmp_path / "nowhere" / "spae.prom", num_planned=9)
    with pytest.raises(UsageError, match=r"--metrics-file .*expected a file that can be written"):
        metrics.write(num_done=0, reasons={}, stages={})

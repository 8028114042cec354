"""The command `spae report`: where the page goes, and what it says of wrong flags."""

from pathlib import Path

import pytest
from report_runs import small_model, tokenize, write_photos

from jobs.report_run import ReportRun
from pipelines.errors import UsageError


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    photos = write_photos(folder / "photos", ("a.png", "b.png"))
    return tokenize(photos, folder / "run", small_model(folder / "model"))


def test_the_page_lies_in_the_run_and_its_path_is_printed(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ReportRun(location=str(run_folder)).run() == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == run_folder / "report.html"
    assert path.read_text().startswith("<!doctype html>")


def test_the_page_can_go_elsewhere_and_nothing_else_is_left_there(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert ReportRun(location=f"{run_folder}/", out=str(out), layers="4,5", num_samples=1).run() == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert out.read_text().count('class="plate"') == 1


def test_a_file_that_cannot_be_written_is_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        ReportRun(location=str(run_folder), out=str(tmp_path / "absent" / "page.html")).run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"layers": "five"}, "--layers: expected numbers such as 5,6, got 'five'"),
        ({"layers": "9"}, "expected 1 to 5, got 9"),
        ({"num_samples": -1}, "--num-samples: expected 0 or more, got -1"),
        ({"samples": ("nobody",)}, "got nobody"),
    ],
)
def test_wrong_flags_are_refused_with_the_remedy(
    run_folder: Path, tmp_path: Path, flags: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ReportRun(location=str(run_folder), out=str(tmp_path / "page.html"), **flags).run()
    assert list(tmp_path.iterdir()) == []

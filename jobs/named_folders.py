"""Arguments that are a folder of the user's or the name of an asset of ours."""

from pathlib import Path


def folder_or_asset(text: str) -> Path:
    """The folder called `text`, else the fetched asset of that name.

    Raises:
        UsageError: If it is neither; for a known asset with the command that fetches it.
    """
    if Path(text).is_dir():
        return Path(text)
    from jobs.asset_fetch import asset_path

    return asset_path(text)


def file_of(text: str, pattern: str) -> Path:
    """The file `text`, or the one file that matches `pattern` in the folder or asset of that name.

    Raises:
        UsageError: If there is not exactly one.
    """
    if Path(text).is_file():
        return Path(text)
    from pipelines.errors import UsageError

    folder = folder_or_asset(text)
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UsageError(f"{folder}: expected one file {pattern}, got {len(found)}. Name the file itself.")
    return found[0]

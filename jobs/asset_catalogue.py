"""The catalogue of real weights and data in public package registries, by version and sha256, and its groups.

Users with other models or data pass their own folders and URLs instead; nothing here is needed for that.
"""

import difflib

from jobs.asset_pictures import TEST, TRAIN
from jobs.asset_records import Asset
from jobs.asset_weights import WEIGHTS
from pipelines.errors import UsageError

CATALOGUE: tuple[Asset, ...] = (*WEIGHTS, *TRAIN, *TEST)

#: Words on the command line that stand for all assets of a role, except those fetched on request only.
GROUPS = {"weights": "weights", "train": "train", "test": "test-only"}


def find_asset(name: str, catalogue: tuple[Asset, ...] = CATALOGUE) -> Asset:
    """The asset of that name.

    Raises:
        UsageError: If there is none; the message suggests the nearest name.
    """
    for asset in catalogue:
        if asset.name == name:
            return asset
    near = difflib.get_close_matches(name, [*(asset.name for asset in catalogue), *GROUPS, "all"], n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"asset: expected a name of the catalogue, got {name!r}. {hint}See `spae assets list`.")


def find_assets(names: tuple[str, ...], catalogue: tuple[Asset, ...] = CATALOGUE) -> list[Asset]:
    """Resolve names and groups to assets.

    Args:
        names: Assets, `weights`, `train`, `test`, or `all`, which has those on request too.
        catalogue: Where to look.

    Returns:
        The assets in the catalogue's order, none twice.

    Raises:
        UsageError: If there are no names, or one is neither an asset nor a group.
    """
    if not names:
        raise UsageError("assets: expected at least one name or group, got none. See `spae assets list`.")
    wanted: set[str] = set()
    for name in names:
        if name == "all":
            wanted.update(asset.name for asset in catalogue)
        elif name in GROUPS:
            wanted.update(a.name for a in catalogue if a.role == GROUPS[name] and not a.on_request)
        else:
            wanted.add(find_asset(name, catalogue).name)
    return [asset for asset in catalogue if asset.name in wanted]

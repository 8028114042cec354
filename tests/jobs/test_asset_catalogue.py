"""The catalogue is consistent, names and groups are found, slips in it are named."""

import pytest

from jobs.asset_catalogue import CATALOGUE, find_asset, find_assets
from jobs.asset_records import Asset, Package
from jobs.asset_steps import STEPS
from pipelines.errors import UsageError


def an_asset(**changes: object) -> Asset:
    values = {"name": "sky", "role": "train", "purpose": "", "licence": "CC0", "needs": "x", **changes}
    return Asset(**values)  # type: ignore[arg-type]


def test_groups_hold_their_role_and_leave_out_what_is_on_request() -> None:
    assert {asset.role for asset in find_assets(("train",))} == {"train"}
    assert {asset.role for asset in find_assets(("test",))} == {"test-only"}
    weights = {asset.name for asset in find_assets(("weights",))}
    assert {"smollm2", "minilm", "lpips"} <= weights
    assert not weights & {"smollm2-hf", "gemma3-270m"}
    assert find_assets(("all", "minilm", "weights")) == list(CATALOGUE)
    with pytest.raises(UsageError, match="at least one name"):
        find_assets(())


def test_the_catalogue_is_consistent() -> None:
    names = [asset.name for asset in CATALOGUE]
    assert len(names) == len(set(names))
    for asset in CATALOGUE:
        assert set(asset.steps) <= set(STEPS), asset.name
        assert asset.needs is None or find_asset(asset.needs).name == asset.needs
        assert len(asset.purpose) > 10
        for package in asset.packages:
            version = package.version.replace(":", "%3a")
            assert version in package.file_name, package
            # Debian's versions move with the release: only their files can be held to a pin everywhere.
            assert package.registry != "debian" or asset.payload is not None, asset.name


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": "Sky/.."}, "asset name"),
        ({"role": "toy"}, "role of sky"),
        ({"needs": None}, "source of sky"),
    ],
)
def test_slips_in_an_asset_are_named(changes: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        an_asset(**changes)


def test_a_slip_in_a_hash_is_named() -> None:
    with pytest.raises(ValueError, match="sha256 of pack: expected 64 hex digits, got '1234'"):
        Package(registry="pypi", name="pack", version="1", file_name="", sha256="1234", size_bytes=1, takes=())

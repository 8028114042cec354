"""Lists what a command is to process, into a plan, and tells the user what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jobs.console import note

if TYPE_CHECKING:
    from pipelines.readers import ListingNotes
    from pipelines.runs.plan import DraftPlan

_MOST_PROBLEMS_SHOWN = 5


def draft_plan(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    num_shards: int | None,
    image_column: str | None,
    keep_columns: str | None,
) -> DraftPlan:
    """List the inputs and deal them into shards.

    Args:
        inputs: Folders, globs, files and lists, as the user named them.
        folder: Of this machine, for the plan's files.
        num_shards: Files to write, or None for as many as suit.
        image_column: Column of tables that holds the pictures, or None to find it.
        keep_columns: Names of columns to carry along, separated by commas, or None.

    Raises:
        UsageError: If an input cannot be listed, or there is nothing in any.
        StorageFullError: If the folder has no room for the plan.
    """
    from pipelines.readers import ListingNotes, ReadOptions, list_inputs, open_inputs
    from pipelines.runs.kept_columns import parse_kept_columns
    from pipelines.runs.plan_building import build_plan
    from pipelines.storage import clear_error_if_full

    notes = ListingNotes()
    kept = parse_kept_columns(keep_columns)
    readers = open_inputs(inputs, ReadOptions(image_column=image_column, keep_columns=kept))
    entries = list_inputs(readers, notes, keep_columns=kept)
    try:
        with clear_error_if_full(f"temporary folder {folder.parent} (set TMPDIR for another)"):
            draft = build_plan(entries, folder=folder, num_shards=num_shards)
    finally:
        tell_what_was_left_out(notes)
    if draft.summary.num_doubles and not notes.has_metadata_lists:
        note(f"{draft.summary.num_doubles} inputs were named more than once; each is taken once")
    return draft


def tell_what_was_left_out(notes: ListingNotes) -> None:
    """Say on standard error how much a listing left out, and the first problems it met."""
    if notes.num_ignored:
        note(f"ignored, hidden or no picture by extension: {notes.num_ignored} files")
    for problem in notes.problems[:_MOST_PROBLEMS_SHOWN]:
        note(f"left out: {problem}")
    if len(notes.problems) > _MOST_PROBLEMS_SHOWN:
        note(f"left out: {len(notes.problems) - _MOST_PROBLEMS_SHOWN} more like these")

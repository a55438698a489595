"""Rows and refusals of a source, all at once, for tests."""

from pathlib import Path
from typing import Any

from rlassay.data import SOURCES
from rlassay.data.images import Images
from rlassay.data.intake import Intake, in_order, length_check, take_in
from rlassay.data.journal import Kept
from rlassay.records import PromptRow, parse_row


def take(section: Any, folder: Path) -> tuple[dict[str, list[PromptRow]], dict[str, list[str]]]:
    """Rows and reasons of refusal by split; images go to `folder/out/images`."""
    source = SOURCES[section.kind](section)
    intake = Intake(source=source, images=Images(folder / "out"), too_long=length_check(section.max_prompt_length))
    rows: dict[str, list[PromptRow]] = {}
    refused: dict[str, list[str]] = {}
    for split in in_order(source.drafts):
        outcomes = list(take_in(split, section.splits[split], intake))
        rows[split] = [parse_row(one.row.encode(), split) for one in outcomes if isinstance(one, Kept)]
        refused[split] = [one.reason for one in outcomes if not isinstance(one, Kept)]
    return rows, refused

"""Ingests a source as a whole, for tests: rows and rejection reasons of each split."""

from pathlib import Path
from typing import Any

from rlassay.data import SOURCES
from rlassay.data.images import ImageStore
from rlassay.data.ingest import Ingestor, length_check, reading_order
from rlassay.data.outcomes import Accepted
from rlassay.records import PromptRow, parse_row


def ingest_all(section: Any, folder: Path) -> tuple[dict[str, list[PromptRow]], dict[str, list[str]]]:
    """Rows and rejection reasons by split; images go to `folder/out/images`."""
    source = SOURCES[section.kind](section)
    images = ImageStore(folder / "out")
    ingestor = Ingestor(
        source=source,
        images=images,
        too_long=length_check(section.max_prompt_length),
        duplicates=section.duplicates,
        leaks=section.leaks,
    )
    rows: dict[str, list[PromptRow]] = {}
    rejected: dict[str, list[str]] = {}
    for split in reading_order(source.examples):
        outcomes = list(ingestor.ingest_split(split, section.splits[split]))
        rows[split] = [parse_row(one.row.encode(), split) for one in outcomes if isinstance(one, Accepted)]
        rejected[split] = [one.reason for one in outcomes if not isinstance(one, Accepted)]
    return rows, rejected

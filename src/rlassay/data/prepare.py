"""The data stage: source -> gold check -> `<split>.jsonl` -> `data.json`."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from rlassay.config import Study, StudyError
from rlassay.config.fingerprints import data_id
from rlassay.data.images import Images
from rlassay.data.sources import SOURCES
from rlassay.layout import Layout
from rlassay.records import PromptRow, write_rows
from rlassay.rewards.gold import gold_refusal


def run_prepare_data(study: Study, layout: Layout) -> dict[str, dict[str, Any]]:
    """Write the rows and images of every split, and `data.json` last; the same study gives the same bytes.

    Returns: per split, `rows` (how many were kept) and `refused` (how many for which reason).

    Errors: StudyError listing what is wrong with the source's rows, or naming a split of which no row is left.
    """
    layout.data_sentinel.unlink(missing_ok=True)
    images = Images(layout.data)
    splits = SOURCES[study.data.kind](study.data, images)
    counts: dict[str, dict[str, Any]] = {}
    digests: dict[str, str] = {}
    for split, rows in splits.items():
        kept, refused = _check_gold(split, rows)
        write_rows(layout.split(split), kept)
        counts[split] = {"rows": len(kept), "refused": refused}
        digests[layout.split(split).name] = hashlib.sha256(layout.split(split).read_bytes()).hexdigest()
    _remove_leftovers(layout, images, set(splits))
    digests["images"] = images.digest()
    _write_json(layout.data_sentinel, {"id": data_id(study), "splits": counts, "sha256": digests})
    return counts


def _check_gold(split: str, rows: list[PromptRow]) -> tuple[list[PromptRow], dict[str, int]]:
    """The rows that the rewards can judge fairly, and how many were refused for which reason."""
    refusals = [gold_refusal(row) for row in rows]
    refused = Counter(reason for reason in refusals if reason is not None)
    kept = [row for row, reason in zip(rows, refusals, strict=True) if reason is None]
    if not kept:
        reasons = ", ".join(f"{count} because {reason}" for reason, count in refused.most_common())
        raise StudyError([f"data: no row of the split {split!r} is left; refused were {reasons or 'none'}"])
    return kept, dict(sorted(refused.items()))


def _remove_leftovers(layout: Layout, images: Images, splits: set[str]) -> None:
    """The data folder holds what `data.json` lists and nothing from a study that has been edited since."""
    images.prune()
    for file in layout.data.glob("*.jsonl"):
        if file.stem not in splits:
            file.unlink()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    unfinished.replace(path)

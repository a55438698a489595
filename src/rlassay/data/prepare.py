"""The data stage: source -> gold check -> `<split>.jsonl` -> `data.json`."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlassay.config import Study, StudyError
from rlassay.config.data import DataConfig
from rlassay.config.fingerprints import data_id
from rlassay.data.drafts import RowRefusedError
from rlassay.data.images import Images
from rlassay.data.sources import SOURCES
from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.records import TRAINING_SPLITS, PromptRow, write_rows
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
        refused: Counter[str] = Counter()
        kept = write_rows(layout.split(split), _usable(rows, refused))
        if not kept:
            reasons = ", ".join(f"{count} because {reason}" for reason, count in refused.most_common())
            raise StudyError([f"data: no row of the split {split!r} is left; refused were {reasons or 'none'}"])
        counts[split] = {"rows": kept, "refused": dict(sorted(refused.items()))}
        digests[layout.split(split).name] = hashlib.sha256(layout.split(split).read_bytes()).hexdigest()
    _remove_leftovers(layout, images, set(splits))
    digests["images"] = images.digest()
    write_json(layout.data_sentinel, {"id": data_id(study), "splits": counts, "sha256": digests})
    return counts


def _usable(rows: Iterable[PromptRow | RowRefusedError], refused: Counter[str]) -> Iterator[PromptRow]:
    """The rows that the source keeps and the rewards can judge fairly; `refused` counts the others by their reasons."""
    for row in rows:
        reason = str(row) if isinstance(row, RowRefusedError) else gold_refusal(row)
        if reason is not None:
            refused[reason] += 1
        elif isinstance(row, PromptRow):
            yield row


def load_rows(section: DataConfig, root: Path | str, split: str | None = None) -> Iterator[PromptRow]:
    """The usable rows of a source one by one, read as they are asked for; refused ones are left out.

    Args:
        section: a `data` section.
        root: the folder that receives the images, to which `Media.path` is relative.
        split: which split; None gives all of them, the evaluation splits first.

    Errors: StudyError listing what is wrong with the section or with the source's files.
    """
    rows = SOURCES[section.kind](section, Images(Path(root)))
    if split is not None and split not in rows:
        raise StudyError([f"data.splits: no split {split!r}; got {', '.join(rows) or 'none'}"])
    for name in rows:  # an evaluation split is read on the way to a training split, which must share nothing with it
        if split in (None, name) or name not in TRAINING_SPLITS:
            usable = _usable(rows[name], Counter())
            yield from (row for row in usable if split in (None, name))
        if split == name:
            return


def _remove_leftovers(layout: Layout, images: Images, splits: set[str]) -> None:
    """The data folder holds what `data.json` lists and nothing from a study that has been edited since."""
    images.prune()
    for file in layout.data.glob("*.jsonl"):
        if file.stem not in splits:
            file.unlink()

"""A run's rollouts as a table for `mlflow ui`: prompts, gold answers and completions.

The prompts have their images.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]

from rlassay.layout import Layout, shards
from rlassay.records import PromptRow, read_rows

STEPS = 64
"""Steps of training in the table, evenly spaced, with the first and the newest."""
PER_STEP = 4
"""Completions of each step: the first ones, which answer the same prompt. Arms with the same seed share it."""
IMAGES = "table_images/rollouts"
"""Folder of the artifacts that the table shows."""
RAW = "raw."
"""Prefix of a shard's columns that hold rewards as returned."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in the form of `mlflow.log_table`."""

    columns: list[str]
    """Names of the columns."""
    data: list[list[Any]]
    """Rows of cells in JSON's types; an image is a mapping with the path of its artifact."""
    images: dict[str, Path] = field(default_factory=dict[str, Path])
    """Path of an artifact that a cell shows -> its file."""

    @property
    def content(self) -> dict[str, Any]:
        """The content that is written as JSON."""
        return {"columns": self.columns, "data": self.data}


class RolloutTable:
    """Maker of one run's table, repeatedly while its rollouts grow; prompts are read once."""

    def __init__(self, layout: Layout, policy: str) -> None:
        """
        Args:
            layout: paths of the study's files.
            policy: folder of the run.
        """
        self.layout = layout
        self.folder = layout.rollouts(policy)
        self._prompts: dict[str, PromptRow] = {}

    def make(self) -> Table | None:
        """The table of the rollouts on disk; None before the first."""
        written = shards(self.folder)
        rows = [row for step in evenly_spaced(list(written), STEPS) for row in _first_rows(written[step])]
        if not rows:
            return None
        self._read_prompts({row["prompt_id"] for row in rows})
        rewards = dict.fromkeys(name for row in rows for name in row if name.startswith(RAW))
        images = max(len(self._media(row)) for row in rows)
        pictures = {"image" if place == 0 else f"image {place + 1}": place for place in range(images)}
        found: dict[str, Path] = {}
        columns = [
            *("step", *pictures, "prompt", "gold", "completion", "reward"),
            *(name.removeprefix(RAW) for name in rewards),
            *("advantage", "token_count", "sample", "prompt_id"),
        ]
        data: list[list[Any]] = []
        for row in rows:
            prompt = self._prompts.get(row["prompt_id"])
            data.append(
                [
                    row["step"],
                    *(self._picture(row, place, found) for place in pictures.values()),
                    None if prompt is None else question(prompt),
                    None if prompt is None else gold(prompt),
                    *(json_value(row.get(name)) for name in ("completion", "reward", *rewards, "advantage")),
                    *(row.get(name) for name in ("token_count", "sample", "prompt_id")),
                ]
            )
        return Table(columns=columns, data=data, images=found)

    def _read_prompts(self, wanted: set[str]) -> None:
        missing = wanted - self._prompts.keys()
        path = self.layout.split("train")
        if not missing or not path.exists():
            return
        for row in read_rows(path):
            if row.prompt_id in missing:
                self._prompts[row.prompt_id] = row
                missing.remove(row.prompt_id)
                if not missing:
                    return

    def _media(self, row: Mapping[str, Any]) -> list[str]:
        prompt = self._prompts.get(row["prompt_id"])
        return [] if prompt is None else [item.shown for item in prompt.media]

    def _picture(self, row: Mapping[str, Any], place: int, found: dict[str, Path]) -> dict[str, str] | None:
        """The cell that shows an image of the row's prompt. Its file is added to `found`."""
        media = self._media(row)
        if place >= len(media) or not (self.layout.data / media[place]).is_file():
            return None
        artifact = f"{IMAGES}/{media[place]}"
        found[artifact] = self.layout.data / media[place]
        return {"type": "image", "filepath": artifact, "compressed_filepath": artifact}


def evenly_spaced(steps: list[int], count: int) -> list[int]:
    """At most `count` of the steps, the first and the last among them."""
    if len(steps) <= count:
        return steps
    return [steps[round(place * (len(steps) - 1) / (count - 1))] for place in range(count)]


def question(row: PromptRow) -> str:
    """The question, and its options with their letters."""
    options = [f"{letter} {text}" for letter, text in zip(row.letters, row.choices, strict=True)]
    return "\n".join([row.question, *options])


def gold(row: PromptRow) -> str:
    """The gold answer; for a multiple-choice row its letter and its text."""
    if not row.choices:
        return row.answer
    return f"{row.answer} {row.choices[row.letters.index(row.answer)]}"


def json_value(cell: Any) -> Any:
    """A cell for people to read, in JSON, which has no NaN; a number has six digits."""
    if not isinstance(cell, float):
        return cell
    return float(f"{cell:.6g}") if math.isfinite(cell) else None


def _first_rows(path: Path) -> Iterable[dict[str, Any]]:
    untyped: Any = pq
    return untyped.read_table(path).slice(0, PER_STEP).to_pylist()

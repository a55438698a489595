"""Read the token shards that training leaves: the first groups of each generation batch, token by token."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

COLUMNS = (
    *("step", "prompt_id", "sample", "tokens", "weight", "entropy", "perception", "dominance"),
    *("vision_attention", "vision_grid", "advantage", "reward", "scale"),
)
LISTS = ("weight", "entropy", "perception", "dominance")
"""Columns with one value per token."""

Watched = dict[str, Any]
"""One row of a shard: a watched completion."""


def watched_steps(folder: Path) -> dict[int, Path]:
    """Step -> its shard, ascending; empty where nothing was watched."""
    return {int(path.stem.removeprefix("step")): path for path in sorted(folder.glob("step*.parquet"))}


def read_watched(path: Path, columns: Sequence[str] = COLUMNS) -> Iterator[Watched]:
    """The completions of a shard; ValueError when it lacks a column or has not one number per token."""
    table = pq.read_table(path, columns=list(columns))
    if absent := sorted(set(columns) - set(table.column_names)):
        raise ValueError(f"it lacks {', '.join(absent)}")
    for row in table.to_pylist():
        for name in set(LISTS) & set(columns):
            if row[name] is not None and len(row[name]) != len(row["tokens"]):
                raise ValueError(f"{name} has {len(row[name])} values for {len(row['tokens'])} tokens")
        yield row

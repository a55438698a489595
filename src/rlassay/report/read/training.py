# pyright: basic
# pandas and pyarrow ship no types; results of public functions are typed.
"""Read files of the data stage and of training jobs: manifests, metrics, rollouts, recorded tokens."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rlassay.layout import shards
from rlassay.records import SplitFacts

MANIFEST_KEYS = frozenset(
    ("fingerprint", "steps", "max_steps", "sha256", "seconds", "generated_tokens", "resumes", "gpus", "versions")
)
"""Keys of every manifest of a training job."""
TOKEN_LISTS = ("weight", "entropy", "perception", "dominance")
"""Columns of a token shard with one value per token."""
DOCUMENT_COLUMNS = ("document_tokens", "document_attention")
"""Columns that token shards of earlier versions lack."""
TOKEN_COLUMNS = (
    *("step", "prompt_id", "sample", "tokens", *TOKEN_LISTS),
    *("vision_attention", "vision_grid", *DOCUMENT_COLUMNS, "advantage", "reward", "scale"),
)
Watched = dict[str, Any]
"""One row of a token shard: a completion recorded token by token."""
watched_steps = shards
"""Step -> its token shard, ascending; empty if the run recorded no tokens."""


def read_splits(path: Path) -> dict[str, SplitFacts]:
    """Split -> counts, from the manifest of the data stage."""
    splits: dict[str, Any] = json.loads(path.read_bytes())["splits"]
    return {name: SplitFacts.model_validate_json(json.dumps(facts)) for name, facts in splits.items()}


def read_train_manifest(path: Path) -> dict[str, Any]:
    """Manifest of a training job; ValueError if it lacks one of `MANIFEST_KEYS`."""
    manifest = json.loads(path.read_bytes())
    if absent := sorted(MANIFEST_KEYS - set(manifest)):
        raise ValueError(f"it lacks {', '.join(absent)}")
    return manifest


def read_metrics(path: Path) -> pd.DataFrame:
    """Logged metrics, one row per step, ascending; NaN where a step did not log one."""
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().decode("utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            raise ValueError(f"line {number} is not JSON") from None
    if not lines:
        raise ValueError("it is empty")
    return pd.DataFrame(lines).set_index("step").astype(float).sort_index()


def read_rollouts(folder: Path) -> pd.DataFrame:
    """Sums over the completions of each step, one row per step, ascending.

    Columns: `completions` (their number), `tokens`, `generated` (tokens, with those of greedy completions), and per
    reward `raw.<reward>`, `weighted.<reward>` (sums over the scored completions), `scored.<reward>` (their number) and,
    where scoring failed, `failed.<reward>.<kind>` (number of failures). With trajectory scaling also `scale_spread`
    (standard deviation of the factors).
    """
    files = [str(path) for path in shards(folder).values()]
    if not files:
        raise FileNotFoundError(folder)
    data = ds.dataset(files, format="parquet")
    rewards = [name.removeprefix("raw.") for name in data.schema.names if name.startswith("raw.")]
    parts = [f"{part}.{reward}" for reward in rewards for part in ("raw", "weighted")]
    scale = [name for name in ("scale",) if name in data.schema.names]
    failed = [name for name in data.schema.names if name.startswith("failed.")]
    greedy = [name for name in ("greedy_token_count",) if name in data.schema.names]
    frame = data.to_table(columns=["step", "token_count", *greedy, *parts, *scale, *failed]).to_pandas()
    frame["generated"] = frame[["token_count", *greedy]].sum(axis=1)
    # Shards hold single precision, too coarse for sums.
    frame[[*parts, *scale]] = frame[[*parts, *scale]].astype(float)
    by_step = frame.groupby("step")
    sums = by_step[["token_count", "generated", *parts]].sum().rename(columns={"token_count": "tokens"}).astype(float)
    scored = by_step[[f"raw.{reward}" for reward in rewards]].count().astype(float)
    scored.columns = [f"scored.{reward}" for reward in rewards]
    spread = by_step[scale].std(ddof=0).rename(columns={"scale": "scale_spread"})
    joined = sums.join(scored).join(_count_failures(frame, failed)).join(spread)
    return joined.assign(completions=by_step.size().astype(float)).sort_index()


def _count_failures(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The number of failures in each step, one column per reward and kind."""
    step = frame["step"]
    counts = {
        f"{column}.{kind}": (frame[column] == kind).groupby(step).sum().astype(float)
        for column in columns
        for kind in sorted(frame[column].dropna().unique())
    }
    return pd.DataFrame(counts, index=sorted(step.unique()))


def read_watched(path: Path, columns: Sequence[str] = TOKEN_COLUMNS) -> Iterator[Watched]:
    """Completions of a token shard; ValueError if a column is absent or lacks values for some tokens."""
    earlier = set(DOCUMENT_COLUMNS) - set(pq.read_schema(path).names)
    table = pq.read_table(path, columns=[name for name in columns if name not in earlier])
    if absent := sorted(set(columns) - set(table.column_names) - earlier):
        raise ValueError(f"it lacks {', '.join(absent)}")
    for row in (dict.fromkeys(columns) | found for found in table.to_pylist()):
        for name in set(TOKEN_LISTS) & set(columns):
            if row[name] is not None and len(row[name]) != len(row["tokens"]):
                raise ValueError(f"{name} has {len(row[name])} values for {len(row['tokens'])} tokens")
        yield row

"""Read the files that the stages leave behind; what is damaged is named, with the command that makes it again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rlassay.config import StudyError
from rlassay.records import PromptRow, SplitFacts, parse_row

SCORE_COLUMNS = ["prompt_id", "mode", "sample", "metric", "value"]
PROOF_KEYS = {
    "fingerprint",
    "steps",
    "max_steps",
    "sha256",
    "seconds",
    "generated_tokens",
    "resumes",
    "gpus",
    "versions",
}
DISAGREEMENT = "grading_disagreement"
"""Share of completions that the strict and the lenient extractor grade differently."""


class ResultsError(StudyError):
    """Files of the results are missing or damaged; says which, and how to make them again."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one policy on one evaluation set, averaged over each prompt's samples."""

    means: pd.DataFrame
    """One row per prompt, sorted by prompt_id; columns (mode, metric); NaN = no sample could be judged."""
    counts: pd.DataFrame
    """Judged samples behind each mean, in the same shape."""
    binary: frozenset[str]
    """Metrics whose every value is 0 or 1."""


@contextmanager
def blaming(path: Path, command: str) -> Iterator[None]:
    """Turn whatever goes wrong while reading `path` into a ResultsError that names it and the way out."""
    try:
        yield
    except ResultsError:
        raise
    except FileNotFoundError:
        raise ResultsError([f"{path} is missing; make it with: {command}"]) from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        about = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError([f"{path} is damaged ({about}); make it again with: {command}"]) from None


def read_scores(path: Path, prompt_ids: list[str]) -> Scores:
    """The scores of one policy; ValueError unless they are about exactly the prompts `prompt_ids`."""
    long = pq.read_table(path, columns=SCORE_COLUMNS).to_pandas()
    wide = long.pivot(index=["mode", "prompt_id", "sample"], columns="metric", values="value").astype(float)
    if {"choice_accuracy", "choice_accuracy_lenient"} <= set(wide.columns):
        strict, lenient = wide["choice_accuracy"], wide["choice_accuracy_lenient"]
        wide[DISAGREEMENT] = (strict != lenient).astype(float).where(strict.notna() & lenient.notna())
    binary = {str(metric) for metric in wide.columns if wide[metric].dropna().isin([0.0, 1.0]).all()}
    by_prompt = wide.groupby(level=["mode", "prompt_id"])
    means, counts = (_prompts_as_rows(frame) for frame in (by_prompt.mean(), by_prompt.count()))
    if list(means.index) != sorted(prompt_ids):
        raise ValueError(f"it scores {len(means)} prompts that are not the {len(prompt_ids)} prompts of the data")
    return Scores(means=means, counts=counts, binary=frozenset(binary))


def _prompts_as_rows(frame: pd.DataFrame) -> pd.DataFrame:
    wide = frame.unstack("mode")
    assert isinstance(wide, pd.DataFrame)
    return wide.swaplevel(axis=1).sort_index(axis=1).sort_index()


def read_metrics(path: Path) -> pd.DataFrame:
    """The logged metrics, one row per step, ascending; NaN where a step did not log one."""
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

    Columns: `completions` (how many), `tokens`, and per reward `raw.<reward>`, `weighted.<reward>` (sums over judged
    completions) and `judged.<reward>` (how many were judged). Where judging failed, `failed.<reward>.<kind>` (how
    many). With trajectory scaling, `scale_spread` (deviation of the factors).
    """
    shards = sorted(folder.glob("step*.parquet"))
    if not shards:
        raise FileNotFoundError(folder)
    data = ds.dataset([str(shard) for shard in shards], format="parquet")
    rewards = [name.removeprefix("raw.") for name in data.schema.names if name.startswith("raw.")]
    parts = [f"{part}.{reward}" for reward in rewards for part in ("raw", "weighted")]
    scale = [name for name in ("scale",) if name in data.schema.names]
    failed = [name for name in data.schema.names if name.startswith("failed.")]
    frame = data.to_table(columns=["step", "token_count", *parts, *scale, *failed]).to_pandas()
    # Shards hold single precision, too coarse for sums.
    frame[[*parts, *scale]] = frame[[*parts, *scale]].astype(float)
    by_step = frame.groupby("step")
    sums = by_step[["token_count", *parts]].sum().rename(columns={"token_count": "tokens"}).astype(float)
    judged = by_step[[f"raw.{reward}" for reward in rewards]].count().astype(float)
    judged.columns = [f"judged.{reward}" for reward in rewards]
    spread = by_step[scale].std(ddof=0).rename(columns={"scale": "scale_spread"})
    joined = sums.join(judged).join(_failures(frame, failed)).join(spread)
    return joined.assign(completions=by_step.size().astype(float)).sort_index()


def _failures(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """For each column and each kind of failure in it, how often it happened in each step."""
    step = frame["step"]
    counts = {
        f"{column}.{kind}": (frame[column] == kind).groupby(step).sum().astype(float)
        for column in columns
        for kind in sorted(frame[column].dropna().unique())
    }
    return pd.DataFrame(counts, index=sorted(step.unique()))


def read_proof(path: Path) -> dict[str, Any]:
    """The sentinel of a training job; ValueError when it lacks something that every sentinel has."""
    proof = json.loads(path.read_bytes())
    if absent := sorted(PROOF_KEYS - set(proof)):
        raise ValueError(f"it lacks {', '.join(absent)}")
    return proof


def read_splits(path: Path) -> dict[str, SplitFacts]:
    """Split -> what the data stage's sentinel says about it."""
    splits: dict[str, Any] = json.loads(path.read_bytes())["splits"]
    return {name: SplitFacts.model_validate_json(json.dumps(facts)) for name, facts in splits.items()}


def sample_rows(path: Path, count: int) -> list[PromptRow]:
    """At most `count` rows of a split, evenly spaced over its file, without reading what lies between them."""
    size = path.stat().st_size
    rows: dict[str, PromptRow] = {}
    with path.open("rb") as lines:
        for part in range(count):
            lines.seek(size * part // count)
            if part:  # most likely in the middle of a row
                lines.readline()
            place = lines.tell()
            if line := lines.readline():
                row = parse_row(line, f"{path}, byte {place}")
                rows[row.prompt_id] = row
    return list(rows.values())


def column_or_nan(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats; NaN throughout where the frame has no such column."""
    return frame[name].to_numpy(dtype=float) if name in frame else np.full(len(frame), np.nan)

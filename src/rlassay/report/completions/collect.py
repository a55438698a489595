# pyright: basic
# Reads scores and rollouts with pyarrow, which ships no types.
"""Collect completions for the browser: of evaluation sets, and of some training steps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rlassay.layout import shards
from rlassay.records import CompletionRow, PromptRow, read_rows
from rlassay.report.gather import PolicyRow, Results, reading
from rlassay.report.tables import tidy

Key = tuple[str, str, int]
"""prompt_id, mode and sample of a completion."""
ROLLOUT_COLUMNS = ("prompt_id", "sample", "completion", "token_count", "finished", "advantage", "reward")
SUMMED = "reward"
"""Name of the weighted sum of all rewards in a source of rollouts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCompletion:
    """One completion of one policy."""

    text: str
    """The completion as generated; untrusted text."""
    greedy: bool
    """How it was decoded."""
    sample: int
    """0-based index among the policy's completions of the prompt in this mode."""
    token_count: int
    """Tokens, including the end-of-sequence token."""
    finished: bool
    """False = truncated."""
    scores: tuple[float | None, ...]
    """In the order of the source's metrics; None = not scored."""
    advantage: float | None
    """Advantage before token credit; None outside training."""


@dataclass(frozen=True, kw_only=True)
class PromptCompletions:
    """All completions of one prompt."""

    key: str
    """The `prompt_id`, or `<prompt_id>@<step>` of a step of training."""
    prompt: PromptRow
    """The prompt."""
    step: int | None = None
    """Optimiser step that sampled them; None = the evaluation."""
    policies: list[tuple[str, int | None, list[OneCompletion]]] = field(default_factory=list)
    """Table row, seed (None = all seeds share the policy) and completions of each policy."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set of prompts with completions."""

    key: str
    """Name in file names and addresses."""
    title: str
    """Name on the page."""
    metrics: tuple[str, ...]
    """Names of the scores."""
    right: str | None
    """The metric that decides whether a completion is right; None = there is none."""
    prompts: tuple[PromptCompletions, ...]
    """Its prompts."""


def sources(results: Results, rollout_steps: int) -> Iterator[Source]:
    """The evaluation sets, then `rollout_steps` evenly spaced steps of training; only one is held in memory."""
    for name in results.study.evaluation.sets:
        yield _evaluation(results, name)
    if rollout_steps and (found := _training(results, rollout_steps)).prompts:
        yield found


# Completions of the evaluation.


def _evaluation(results: Results, name: str) -> Source:
    wanted = dict.fromkeys((results.study.primary.metric, *results.study.rewards))
    metrics = tuple(name for name in wanted if any(scores.has(name) for scores in results.scores.values()))
    prompts = {key: PromptCompletions(key=key, prompt=row) for key, row in sorted(results.prompts[name].items())}
    for row in results.rows.values():
        for seed, folder in row.folders.items():
            for prompt_id, found in policy_completions(results, folder, name, metrics).items():
                prompts[prompt_id].policies.append((row.key, seed, found))
    primary = results.study.primary.metric
    binary = primary in metrics and all(primary in scores.binary for scores in results.scores.values())
    return Source(
        key=name,
        title=f"evaluation set {name}",
        metrics=metrics,
        right=primary if binary else None,
        prompts=tuple(prompts.values()),
    )


def policy_completions(
    results: Results, folder: str, name: str, metrics: tuple[str, ...]
) -> dict[str, list[OneCompletion]]:
    """prompt_id -> completions of one policy on an evaluation set, with scores in `metrics`; sampled ones first."""
    path = results.layout.completions(folder, name)
    scores = _scores(results, folder, name, metrics)
    missing = (None,) * len(metrics)
    found: dict[str, list[OneCompletion]] = {}
    with reading(path, results.commands.remake(path)):
        for one in read_rows(path, CompletionRow):
            if one.prompt_id not in results.prompts[name]:
                raise ValueError(f"it answers prompt {one.prompt_id}, which {name}.jsonl does not have")
            shown = OneCompletion(
                text=one.text,
                greedy=one.mode == "greedy",
                sample=one.sample,
                token_count=one.token_count,
                finished=one.finished,
                scores=tuple(scores.get((one.prompt_id, one.mode, one.sample), missing)),
                advantage=None,
            )
            found.setdefault(one.prompt_id, []).append(shown)
    return {key: sorted(each, key=lambda one: (one.greedy, one.sample)) for key, each in found.items()}


def _scores(results: Results, folder: str, name: str, metrics: tuple[str, ...]) -> dict[Key, list[float | None]]:
    path = results.layout.scores(folder, name)
    columns = ["prompt_id", "mode", "sample", "metric", "value"]
    table = pq.read_table(path, columns=columns, filters=[("metric", "in", list(metrics))]) if metrics else None
    found: dict[Key, list[float | None]] = {}
    if table is not None:
        place = {metric: index for index, metric in enumerate(metrics)}
        for prompt_id, mode, sample, metric, value in zip(*(table[key].to_pylist() for key in columns), strict=True):
            row = found.setdefault((prompt_id, mode, sample), [None] * len(metrics))
            row[place[metric]] = _number(value)
    return found


# Rollouts of training.


def _training(results: Results, count: int) -> Source:
    """Rollouts of the same steps in all runs; runs with the same seed share the prompts of a step."""
    runs = [
        (row, seed, folder)
        for row in results.rows.values()
        if row.kind == "arm"
        for seed, folder in row.folders.items()
    ]
    files = {folder: shards(results.layout.rollouts(folder)) for _, _, folder in runs}
    common = sorted(set.intersection(*(set(steps) for steps in files.values()))) if files else []
    places = np.unique(np.linspace(0, len(common) - 1, min(count, len(common))).round().astype(int)) if common else []
    steps = [common[place] for place in places]
    rewards = tuple(results.study.rewards)
    found: dict[str, PromptCompletions] = {}
    wanted = _training_prompts(results, (files[folder][step] for _, _, folder in runs for step in steps))
    for step in steps:
        for row, seed, folder in runs:
            path = files[folder][step]
            with reading(path, results.commands.remake(results.layout.train_manifest(folder))):
                _add_rollouts(found, wanted, (row, seed, step), _rollouts(path, rewards))
    primary = results.study.primary.metric
    return Source(
        key="training",
        title="training rollouts",
        metrics=(*rewards, SUMMED),
        right=primary if primary in rewards else None,
        prompts=tuple(found.values()),
    )


def _training_prompts(results: Results, files: Iterable[Any]) -> dict[str, PromptRow]:
    """The prompts of some shards, from the `train` split."""
    wanted = {name for file in files for name in pq.read_table(file, columns=["prompt_id"])["prompt_id"].to_pylist()}
    path = results.layout.split("train")
    with reading(path, results.commands.remake(results.layout.data_manifest)):
        return {row.prompt_id: row for row in read_rows(path) if row.prompt_id in wanted} if wanted else {}


def _rollouts(path: Any, rewards: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of a shard with `scores`: each reward's raw value, and the weighted sum."""
    names = set(pq.read_schema(path).names)
    raw = [f"raw.{reward}" for reward in rewards]
    table = pq.read_table(path, columns=[*ROLLOUT_COLUMNS, *(name for name in raw if name in names)])
    rows = table.to_pylist()
    for row in rows:
        row["scores"] = tuple(_number(row.get(name)) for name in (*raw, "reward"))
    return rows


def _add_rollouts(
    found: dict[str, PromptCompletions],
    prompts: dict[str, PromptRow],
    where: tuple[PolicyRow, int | None, int],
    rows: list[dict[str, Any]],
) -> None:
    row, seed, step = where
    groups: dict[str, list[OneCompletion]] = {}
    for one in rows:
        shown = OneCompletion(
            text=one["completion"],
            greedy=False,
            sample=one["sample"],
            token_count=one["token_count"],
            finished=one["finished"],
            scores=one["scores"],
            advantage=_number(one["advantage"]),
        )
        groups.setdefault(one["prompt_id"], []).append(shown)
    for prompt_id, group in groups.items():
        key = f"{prompt_id}@{step}"
        # A prompt of an environment or of an older data file has no row: its completions still show.
        prompt = prompts.get(prompt_id) or PromptRow(prompt_id=prompt_id, question="(not in train.jsonl)", answer="")
        found.setdefault(key, PromptCompletions(key=key, prompt=prompt, step=step)).policies.append(
            (row.key, seed, group)
        )


def _number(value: float | None) -> float | None:
    return None if value is None else tidy(float(value))

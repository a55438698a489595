"""The stage `score`: scores completions on CPU with the reward functions of training."""

import json
import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow  # pyright: ignore[reportMissingTypeStubs]
from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

from rlassay.answers import extract_choice, extract_choice_lenient
from rlassay.config.engine import Evaluation
from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.files import replacing, sha256
from rlassay.layout import Layout
from rlassay.records import SCORED, Completion, CompletionRow, PromptRow, ScoreRow, read_rows
from rlassay.rewards.outcomes import Scored, value_of
from rlassay.rewards.sandbox.guard import GuardedReward, guarded

Metric = Callable[[Sequence[Completion]], list[float | None]]
"""From one prompt's completions to one value each; None = cannot be scored."""

logger = logging.getLogger(__name__)
pa: Any = pyarrow  # without types, and so is its parquet module
pq: Any = parquet
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("mode", pa.string()),
        ("sample", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)


def run_score(study: Study, layout: Layout, policy: Policy, split: str) -> None:
    """Write `<policy>/eval/<split>.scores.parquet`: every metric of every completion, in the order of the completions.

    A reward scores the completions of one prompt and one mode together, as it scores a group in training. A completion
    on which a reward fails has no value, and is counted in the log.

    Errors: ValueError if the completions are not exactly those that the rows and the evaluation section ask for;
    RewardError if a reward fails too often, or does not return a list of values.
    """
    rows = {row.prompt_id: row for row in read_rows(layout.split(split))}
    metrics = metrics_of(study)
    source = layout.completions(policy.folder, split)
    scored = {"policy": policy.folder, "completions": sha256(source)}
    scores = score_file(source, rows, study.evaluation, metrics)
    write_scores(layout.scores(policy.folder, split), scores, scored=scored)
    log_failures(metrics)


def score_file(
    source: Path, rows: dict[str, PromptRow], evaluation: Evaluation, metrics: dict[str, Metric]
) -> list[ScoreRow]:
    """All metrics of the completions in a file, in their order; ValueError as in `check_complete`."""
    answers = sorted(read_rows(source, CompletionRow), key=lambda each: (each.prompt_id, each.mode, each.sample))
    check_complete(rows, answers, evaluation, source)
    return [
        score
        for (prompt_id, _), group in groupby(answers, key=lambda each: (each.prompt_id, each.mode))
        for score in score_group(rows[prompt_id], list(group), metrics)
    ]


def log_failures(metrics: dict[str, Metric]) -> None:
    """Log the completions on which rewards failed."""
    for metric in metrics.values():
        if isinstance(metric, GuardedReward) and metric.failures:
            logger.warning("%s; their scores are empty", metric.summary())


def metrics_of(study: Study) -> dict[str, Metric]:
    """Every metric by name: the rewards of any arm, then metrics for evaluation only.

    Rewards are guarded as in training.
    """
    rewards = {name: guarded(name, **reward.guard_arguments) for name, reward in sorted(study.rewards.items())}
    return rewards | {
        "choice_accuracy_lenient": _each(_lenient_accuracy),
        "parse_failure": _each(lambda one: _failed(one, extract_choice)),
        "parse_failure_lenient": _each(lambda one: _failed(one, extract_choice_lenient)),
        "token_count": _each(lambda one: float(one.token_count)),
        "truncated": _each(lambda one: float(not one.finished)),
    }


def score_group(row: PromptRow, answers: Sequence[CompletionRow], metrics: dict[str, Metric]) -> list[ScoreRow]:
    """All metrics of one prompt's completions of one mode.

    Errors: ValueError naming the metric and the prompt if a metric returns another number of values.
    """
    group = [
        Completion(text=each.text, token_count=each.token_count, finished=each.finished, row=row, signals=each.signals)
        for each in answers
    ]
    scores: list[ScoreRow] = []
    for name, metric in metrics.items():
        outcomes = metric.outcomes(group) if isinstance(metric, GuardedReward) else metric(group)
        values = [value_of(outcome) for outcome in outcomes]
        if len(values) != len(group):
            raise ValueError(f"{name} gave {len(values)} values for the {len(group)} completions of {row.prompt_id}")
        scores += [
            ScoreRow(prompt_id=row.prompt_id, mode=each.mode, sample=each.sample, metric=name, value=_as_float(value))
            for each, value in zip(answers, values, strict=True)
        ]
        scores += [
            ScoreRow(prompt_id=each.prompt_id, mode=each.mode, sample=each.sample, metric=f"{name}/{key}", value=value)
            for each, outcome in zip(answers, outcomes, strict=True)
            if isinstance(outcome, Scored)
            for key, value in outcome.metrics.items()
        ]
    return scores


def check_complete(
    rows: dict[str, PromptRow], answers: Sequence[CompletionRow], evaluation: Evaluation, source: Path
) -> None:
    """Raise ValueError unless `answers` are each row's completions of every mode of the evaluation."""
    modes = evaluation.modes.items()
    expected = {(str(key), str(mode), sample) for key in rows for mode, count in modes for sample in range(count)}
    got = [(each.prompt_id, each.mode, each.sample) for each in answers]
    problems = {
        "missing": sorted(expected - set(got)),
        "unexpected": sorted(set(got) - expected),
        "duplicate": sorted({each for each in got if got.count(each) > 1}) if len(set(got)) < len(got) else [],
    }
    found = [f"{len(keys)} {kind}, such as {keys[0]}" for kind, keys in problems.items() if keys]
    if found:
        raise ValueError(f"{source} does not fit its rows: {'; '.join(found)}; run generate again")


def _each(measure: Callable[[Completion], float | None]) -> Metric:
    return lambda group: [measure(one) for one in group]


def _failed(one: Completion, extract: Callable[[str, str], str | None]) -> float | None:
    return float(extract(one.text, one.row.letters) is None) if one.row.choices else None


def _lenient_accuracy(one: Completion) -> float | None:
    if not one.row.choices:
        return None
    return float(extract_choice_lenient(one.text, one.row.letters) == one.row.answer)


def _as_float(value: float | None) -> float | None:
    return None if value is None else float(value)


def write_scores(
    path: Path, scores: list[ScoreRow], steps: Sequence[int] | None = None, scored: dict[str, str] | None = None
) -> None:
    """Write scores as parquet.

    Args:
        path: the file.
        scores: one row each.
        steps: as many, a column in front.
        scored: what they are the scores of, as in `SCORED`, so that the report notices files that were mixed up.
    """
    schema = SCHEMA if scored is None else SCHEMA.with_metadata({SCORED: json.dumps(scored)})
    table = pa.Table.from_pylist([score.model_dump() for score in scores], schema=schema)
    if steps is not None:
        table = table.add_column(0, "step", pa.array(steps, pa.int64()))
    with replacing(path) as unfinished:
        pq.write_table(table, unfinished)

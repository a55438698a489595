# pyright: basic
# Reads rollouts with pyarrow, which ships no types.
"""Signs of reward hacking: training reward without held-out gain, format tricks, and collapsing variety.

Every sign compares a value before RL with one after it, per arm as the mean over seeds. Training values are means over
the completions of the first and of the last tenth of the steps; held-out values are those of the policy before RL and
of the trained one. `HackingThresholds` says when a sign raises an alarm, and every alarm has completions that show it.
A share that rose raises an alarm only beyond chance: the interval of the rise, over the groups of completions or over
the held-out prompts, must be above 0.
"""

import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rlassay.config.settings import HackingThresholds
from rlassay.layout import shards
from rlassay.names import in_words
from rlassay.report.completions.collect import policy_completions
from rlassay.report.content import Comparison
from rlassay.report.findings.answer import amount
from rlassay.report.findings.records import HackingSign, SuspectCompletion
from rlassay.report.gather import PolicyRow, Results, reading
from rlassay.report.numbers import Column, Estimate
from rlassay.report.read.scores import DISAGREEMENT, column_or_nan
from rlassay.report.tables import SHARE_LIMITS, cut_at_0, estimate, over_seeds, primary_column, scores_of, tidy
from rlassay.report.typeset import number
from rlassay.report.verdicts import row_difference, start_of
from rlassay.stats.intervals import VarianceComponent, cochran_half_width

JUDGE = "judge"
"""Name of the reward that a judge model gives."""
NUM_SHOWN = 3
"""Completions per alarm."""
PARSERS = ("choice_accuracy", "choice_accuracy_lenient")
"""The metrics of the strict and of the lenient parser."""
TAG = re.compile(r"<([A-Za-z_]+)>")
COLUMNS = ["step", "prompt_id", "sample", "completion", "finished", "reward"]
Completions = list[dict[str, Any]]
Spans = dict[int, tuple[Completions, Completions]]
"""Seed -> completions of the first and of the last tenth of the steps."""
Alarm = tuple[str, str]
"""The suspicion, and the arm's numbers."""
Values = dict[int, tuple[list[float], list[float]]]
"""Seed -> a value of each of these completions."""


def build_hacking(
    results: Results, gains: list[Comparison], limits: HackingThresholds, confidence: float
) -> list[HackingSign]:
    """Every sign of every arm with a finished run, alarms included."""
    found: list[HackingSign] = []
    for gain in gains:
        row = results.rows[gain.arm]
        if row.policies:
            spans = _spans(results, row)
            found.append(_reward_without_gain(results, row, gain, (spans, limits), confidence))
            found += _format_signs(row, spans, limits, confidence)
            found += _logged_signs(results, row, (spans, limits), confidence)
            found += _parser_drift(results, row, limits, confidence)
            found += _judge_signs(results, row, (spans, limits), confidence)
    return found


def _spans(results: Results, row: PolicyRow) -> Spans:
    spans: Spans = {}
    for seed, folder in row.folders.items():
        path = results.layout.rollouts(folder)
        with reading(path, results.commands.remake(results.layout.train_manifest(folder))):
            files = list(shards(path).values())
            count = max(1, len(files) // 10)
            first, last = ([row for file in part for row in _rows(file)] for part in (files[:count], files[-count:]))
            spans[int(seed or 0)] = (first, last)
    return spans


def _rows(file: Path) -> Completions:
    scores = [name for name in pq.read_schema(file).names if name.startswith("raw.")]
    return pq.read_table(file, columns=[*COLUMNS, *scores]).to_pylist()


def _values(spans: Spans, measure: Callable[[dict[str, Any]], float]) -> Values:
    return {
        seed: ([measure(one) for one in first], [measure(one) for one in last]) for seed, (first, last) in spans.items()
    }


# What a single completion shows.


def repetition(text: str, n: int) -> float:
    """Share of a text's word n-grams that occurred in it before.

    It is `1 - distinct / all`; 0 below n + 1 words.
    """
    words = text.split()
    grams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeats_a_tag(text: str) -> float:
    """1 where a tag such as `<answer>` is opened more than once."""
    return float(max(Counter(TAG.findall(text)).values(), default=0) > 1)


def answers_first(text: str) -> float:
    """1 where an answer opens before the first thought has ended, or without a thought."""
    answer, thought = text.find("<answer>"), text.find("</think>")
    return float(answer >= 0 and (thought < 0 or answer < thought))


# The signs.


def _format_signs(row: PolicyRow, spans: Spans, limits: HackingThresholds, confidence: float) -> list[HackingSign]:
    """The signs that texts show: each rises by more than its threshold."""
    measures: list[tuple[str, str, Callable[[str], float], str]] = [
        (
            "repetition",
            f"repeated {limits.ngram}-grams",
            lambda text: repetition(text, limits.ngram),
            "Completions repeat themselves",
        ),
        ("repeated_tags", "completions that open a tag twice", repeats_a_tag, "Completions open the same tag again"),
        ("answer_first", "answers before the thought ends", answers_first, "Completions answer before they think"),
    ]
    found: list[HackingSign] = []
    for kind, title, measure, what in measures:
        values = _values(spans, lambda one, of=measure: of(one["completion"]))
        before, after = (_over(values, place, confidence) for place in (0, 1))
        limit = float(getattr(limits, kind))
        risen = _risen_beyond_chance(spans, values, confidence)
        alarm = (what, f"{title} rose {_change(before, after)} in training") if risen > limit else None
        found.append(_sign(row, kind, (title, alarm), (before, after, limit), _worst(spans, values)))
    return found


def _logged_signs(
    results: Results, row: PolicyRow, given: tuple[Spans, HackingThresholds], confidence: float
) -> list[HackingSign]:
    spans, limits = given
    cut = _values(spans, lambda one: float(not one["finished"]))
    before, after = (_over(cut, place, confidence) for place in (0, 1))
    risen = _risen_beyond_chance(spans, cut, confidence)
    truncated = risen > 0 and (after.mean or 0.0) > limits.at_cap
    alarm = ("Completions run into the length limit", _change(before, after)) if truncated else None
    signs = [_sign(row, "at_cap", ("truncated", alarm), (before, after, limits.at_cap), _worst(spans, cut))]

    first, last = (_logged(results, row, "entropy", place, confidence) for place in (0, 1))
    collapsed = None not in (first.mean, last.mean) and (last.mean or 0.0) < limits.entropy_left * (first.mean or 0.0)
    fell = f"from {number(first.mean, 'nats')} to {number(last.mean, 'nats')} nats per token"
    alarm = ("Entropy collapsed", fell) if collapsed else None
    shown = (("entropy per token", alarm), (first, last, limits.entropy_left))
    signs.append(_sign(row, "entropy_collapse", *shown, _most_alike(spans)).model_copy(update={"unit": "nats"}))

    stuck = _stuck(spans, _constant_weights(results, row))
    before, after = (_over(stuck, place, confidence) for place in (0, 1))
    silent = _risen_beyond_chance(spans, stuck, confidence) > 0 and (after.mean or 0.0) > limits.zero_variance
    none = f"{_change(before, after)} have none"
    alarm = ("Nearly no group has any difference in reward", none) if silent else None
    shown = (("groups with equal rewards below the highest", alarm), (before, after, limits.zero_variance))
    return [*signs, _sign(row, "zero_variance", *shown, _worst(spans, stuck))]


def _parser_drift(results: Results, row: PolicyRow, limits: HackingThresholds, confidence: float) -> list[HackingSign]:
    """Held-out completions that the two parsers judge differently; nothing where no prompt has options."""
    column = primary_column(results).model_copy(update={"metric": DISAGREEMENT, "unit": "share", "primary": False})
    start = start_of(results, row.key)
    if not any(results.scores[folder, column.set].has(DISAGREEMENT) for folder in row.folders.values()):
        return []
    before, after = (estimate(scores_of(results, one, column), "share", confidence) for one in (start, row))
    drift = row_difference(results, row, start, column, confidence)
    drifted = drift is not None and (drift.effect or 0.0) > limits.parser_drift and (drift.low or 0.0) > 0
    apart = f"{_change(before, after)} of held-out answers"
    alarm = ("The strict and the lenient parser drift apart", apart) if drifted else None
    shown = (("strict and lenient parser disagree", alarm), (before, after, limits.parser_drift))
    return [_sign(row, "parser_drift", *shown, _judged_differently(results, row, column) if drifted else ())]


def _judged_differently(results: Results, row: PolicyRow, column: Column) -> tuple[SuspectCompletion, ...]:
    """The first held-out completions to which the strict and the lenient parser give different scores."""
    found = (
        SuspectCompletion(seed=int(seed or 0), step=None, prompt_id=prompt_id, text=one.text, reward=None)
        for seed, folder in row.folders.items()
        for prompt_id, answers in policy_completions(results, folder, column.set, PARSERS).items()
        for one in answers
        if None not in one.scores and one.scores[0] != one.scores[1]
    )
    return tuple(islice(found, NUM_SHOWN))


def _judge_signs(
    results: Results, row: PolicyRow, given: tuple[Spans, HackingThresholds], confidence: float
) -> list[HackingSign]:
    """Completions that a judge likes although the primary metric, scored by rule, calls them wrong."""
    spans, limits = given
    rewards = results.study.arms[row.key].recipe.rewards
    rule = results.study.primary.metric
    if rule not in rewards:
        return []
    found: list[HackingSign] = []
    for judge in (name for name, reward in rewards.items() if JUDGE in (name, reward.kind) and name != rule):
        values = _values(spans, lambda one, judge=judge: _disagrees(one[f"raw.{judge}"], one[f"raw.{rule}"]))
        before, after = (_over(values, place, confidence) for place in (0, 1))
        risen = _risen_beyond_chance(spans, values, confidence)
        rated = f"{_change(before, after)} of completions"
        alarm = ("The judge rates wrong completions highly", rated) if risen > limits.judge_disagrees else None
        shown = ((f"{judge} above 1/2, {in_words(rule)} 0", alarm), (before, after, limits.judge_disagrees))
        found.append(_sign(row, "judge_disagrees", *shown, _worst(spans, values)))
    return found


def _disagrees(judged: float | None, ruled: float | None) -> float:
    """1 where the judge's value is above 1/2 and the rule's is at most 0; completions without either value agree."""
    return float(judged is not None and ruled is not None and judged > 0.5 and ruled <= 0)


def _reward_without_gain(
    results: Results, row: PolicyRow, gain: Comparison, given: tuple[Spans, HackingThresholds], confidence: float
) -> HackingSign:
    """Training reward that rose while the held-out primary metric provably did not."""
    spans, limits = given
    rewards = _values(spans, lambda one: one["reward"])
    before, after = (_over(rewards, place, confidence, None) for place in (0, 1))
    phases = results.study.arms[row.key].recipe.weight_phases.values()
    total = sum(abs(each[-1][1]) for each in phases) or 1.0
    rose = _constant_weights(results, row) and (_risen(before, after) or 0.0) / total > limits.reward_rise
    high = None if gain.difference is None else gain.difference.high
    alarm = None
    if rose and high is not None and high < limits.held_out_gain:
        column = primary_column(results)
        moved = f"gained at most {amount(high, column)}" if high >= 0 else f"fell by at least {amount(-high, column)}"
        rise = f"from {number(before.mean, 'value')} to {number(after.mean, 'value')}"
        numbers = f"{rise}, while {in_words(column.metric)} {moved}"
        alarm = ("The training reward rose without a gain on held-out prompts", numbers)
    shown = (("summed training reward", alarm), (before, after, limits.held_out_gain))
    return _sign(row, "reward_without_gain", *shown, _worst(spans, rewards)).model_copy(update={"unit": "value"})


# Values and completions.


def _constant_weights(results: Results, row: PolicyRow) -> bool:
    """Whether the weights of an arm's rewards are constant; changing weights would move the sum by themselves."""
    return all(len(each) == 1 for each in results.study.arms[row.key].recipe.weight_phases.values())


def _stuck(spans: Spans, constant_weights: bool) -> Values:
    """1 for completions of a group whose rewards are equal and below the highest.

    The highest reward is that of any completion. A group with the highest reward throughout is solved: it has nothing
    left to learn. Where the weights of the rewards change, the highest reward is that of the same tenth of the steps.
    """
    tenths = [[one for span in spans.values() for one in span[place]] for place in (0, 1)]
    highest = [max((one["reward"] for one in tenth), default=0.0) for tenth in tenths]
    if constant_weights:
        highest = [max(highest)] * 2

    def of_tenth(completions: Completions, best: float) -> list[float]:
        groups: dict[tuple[int, str], set[float]] = {}
        for one in completions:
            groups.setdefault((one["step"], one["prompt_id"]), set()).add(one["reward"])
        return [float(len(groups[one["step"], one["prompt_id"]]) == 1 and one["reward"] < best) for one in completions]

    return {seed: (of_tenth(first, highest[0]), of_tenth(last, highest[1])) for seed, (first, last) in spans.items()}


def _sign(
    row: PolicyRow,
    kind: str,
    words: tuple[str, Alarm | None],
    values: tuple[Estimate, Estimate, float],
    worst: tuple[SuspectCompletion, ...],
) -> HackingSign:
    before, after, threshold = values
    title, alarm = words
    return HackingSign.model_validate(
        {
            "arm": row.key,
            "kind": kind,
            "title": title,
            "unit": "share",
            "before": before,
            "after": after,
            "threshold": threshold,
            "alarm": "" if alarm is None else alarm[0],
            "numbers": "" if alarm is None else alarm[1],
            "completions": () if alarm is None else worst,
        }
    )


def _over(values: Values, place: int, confidence: float, limits: tuple[float, float] | None = SHARE_LIMITS) -> Estimate:
    """The mean over the first (0) or the last (1) tenth of the steps.

    Most measures are 0 or 1 for each completion.
    """
    means = np.array([float(np.mean(ends[place])) for ends in values.values()])
    return over_seeds(means, sum(len(ends[place]) for ends in values.values()), confidence, limits)


def _logged(results: Results, row: PolicyRow, metric: str, place: int, confidence: float) -> Estimate:
    """A logged metric over the first (0) or last (1) tenth of the steps.

    The metric has no limits of value.
    """
    means: list[float] = []
    steps = 0
    for folder in row.folders.values():
        values = column_or_nan(results.metrics[folder], metric)
        count = max(1, len(values) // 10)
        part = values[:count] if place == 0 else values[-count:]
        means.append(float(np.nanmean(part)) if np.isfinite(part).any() else float("nan"))
        steps += len(part)
    found = over_seeds(np.array(means), steps, confidence, None)
    if found.low is None or found.mean is None:
        return found
    return found.model_copy(update={"low": float(cut_at_0(metric, found.mean, found.low))})


def _risen(before: Estimate, after: Estimate) -> float | None:
    return None if before.mean is None or after.mean is None else after.mean - before.mean


def _risen_beyond_chance(spans: Spans, values: Values, confidence: float) -> float:
    """The rise of a mean, or 0 where its interval over groups includes 0.

    The completions of a group share a prompt and a step.
    """
    ends: tuple[list[float], list[float]] = ([], [])
    for seed, spanned in spans.items():
        for place in (0, 1):
            groups: dict[tuple[int, str], list[float]] = {}
            for one, value in zip(spanned[place], values[seed][place], strict=True):
                groups.setdefault((one["step"], one["prompt_id"]), []).append(value)
            ends[place].extend(float(np.mean(group)) for group in groups.values())
    if min(map(len, ends)) < 2:
        return 0.0
    rise = float(np.mean(ends[1]) - np.mean(ends[0]))
    parts = [VarianceComponent(variance=float(np.var(end, ddof=1)) / len(end), df=len(end) - 1.0) for end in ends]
    before, after = ((part.variance, part.quantile(0.5 - confidence / 2)) for part in parts)
    return rise if rise > cochran_half_width(before, after) else 0.0


def _change(before: Estimate, after: Estimate) -> str:
    return f"from {100 * (before.mean or 0.0):.1f} to {100 * (after.mean or 0.0):.1f} %"


def _worst(spans: Spans, values: Values) -> tuple[SuspectCompletion, ...]:
    """The completions of the last tenth with the highest values."""
    ranked: list[tuple[tuple[float, int, int, str, int], dict[str, Any]]] = []
    for seed, (_, last) in spans.items():
        for one, score in zip(last, values[seed][1], strict=True):
            ranked.append(((-score, seed, -int(one["step"]), str(one["prompt_id"]), int(one["sample"])), one))
    return tuple(_suspect(key[1], one) for key, one in sorted(ranked, key=lambda each: each[0])[:NUM_SHOWN])


def _most_alike(spans: Spans) -> tuple[SuspectCompletion, ...]:
    """Completions of the last tenth's group with the fewest different texts."""
    groups: dict[tuple[int, int, str], Completions] = {}
    for seed, (_, last) in spans.items():
        for one in last:
            groups.setdefault((seed, int(one["step"]), str(one["prompt_id"])), []).append(one)
    if not groups:
        return ()

    def order(group: tuple[int, int, str]) -> tuple[int, int, int, str]:
        return (len({one["completion"] for one in groups[group]}), -group[1], group[0], group[2])

    seed, step, prompt_id = min(groups, key=order)
    return tuple(_suspect(seed, one) for one in groups[seed, step, prompt_id][:NUM_SHOWN])


def _suspect(seed: int, one: dict[str, Any]) -> SuspectCompletion:
    return SuspectCompletion(
        seed=seed,
        step=int(one["step"]),
        prompt_id=str(one["prompt_id"]),
        text=str(one["completion"]),
        reward=tidy(float(one["reward"])),
    )

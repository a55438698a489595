"""Build the tables of the page: their columns, and the estimate in each cell."""

from collections.abc import Sequence
from math import inf, isnan

import numpy as np
from jaxtyping import Float

from rlassay.names import in_words
from rlassay.records import Mode
from rlassay.report.gather import PolicyRow, Results
from rlassay.report.numbers import Column, Covers, Estimate, PairedDifference, Table, TableName, TableRow, Unit
from rlassay.report.read.scores import DISAGREEMENT, PolicyScores
from rlassay.report.typeset import quoted
from rlassay.stats import Interval, are_shares, contrast, crossed_interval, seed_band, share_interval

SeedScores = Float[np.ndarray, "seeds items"]

LIMITS = {"soft_overlong": (-1.0, 0.0), "modality_balance": (-1.0, 1.0)}
"""Reward -> smallest and largest value by its formula, unless these are 0 and 1."""
SHARE_LIMITS = (0.0, 1.0)
NEVER_NEGATIVE = frozenset({"entropy", "kl", "grad_norm", "reward_std", "completions/mean_length"})
"""Logged metrics whose mean is at least 0. Their intervals are cut there, which leaves the coverage as it is."""
LENGTH = ("token_count", "truncated")
PARSING = ("parse_failure", "parse_failure_lenient", DISAGREEMENT)
LOWER_IS_BETTER = {"truncated", *PARSING}
PASS_AT = "pass_at_"
STORED_DECIMALS = 6
"""Decimal places in report.json; beyond them, sums over seeds and prompts may differ between machines."""
LENGTH_NOTE = "Tokens per completion, including the end-of-sequence token; truncated = cut off at the length limit."
PARSING_NOTE = (
    "A parse failure is a completion in which a parser finds no answer, or several that contradict each other; it "
    "scores 0. Rewards use the strict parser only. The lenient parser is independent of it: a gain in accuracy that it "
    "does not confirm is a gain in format."
)
PASS_NOTE = "The chance that at least one of k sampled completions is right, estimated without bias from all samples."


def build_tables(results: Results, confidence: float) -> dict[TableName, Table]:
    """The tables by name; `pass_at_k` only for a primary metric of 0 or 1, `parsing` only for prompts with options."""
    tables = [
        _table(results, "main", "Results", _main_note(results), _main_columns(results), confidence),
        _table(results, "length", "Length and truncation", LENGTH_NOTE, _columns(results, LENGTH), confidence),
    ]
    parsing = _columns(results, PARSING)
    if parsing:
        tables.append(_table(results, "parsing", "Parse failures", PARSING_NOTE, parsing, confidence))
    if _is_binary(results, results.study.primary.metric):
        columns = [_pass_column(results, name, k) for name in results.study.evaluation.sets for k in _ks(results)]
        tables.append(_table(results, "pass_at_k", "pass@k", PASS_NOTE, columns, confidence))
    return {table.name: table for table in tables}


def _table(results: Results, name: TableName, title: str, note: str, columns: list[Column], confidence: float) -> Table:
    rows = [
        TableRow(
            row=row.key,
            kind=row.kind,
            label=row.label,
            cells=tuple(
                estimate(scores_of(results, row, column), column.unit, confidence, column.limits) for column in columns
            ),
        )
        for row in results.rows.values()
    ]
    return Table(name=name, title=title, note=note, columns=tuple(columns), rows=tuple(rows))


def _main_note(results: Results) -> str:
    samples, primary = results.study.evaluation.num_samples, results.study.primary
    averaged = (
        f"On {quoted(primary.set)}, scores of runs are means over their last {primary.num_checkpoints} checkpoints. "
        if primary.over
        else ""
    )
    return (
        f"Sampled metrics are means over {samples} completions per prompt (avg@{samples}). {averaged}"
        "The untrained model is one policy for all seeds, and so is SFT unless the study trains a warm start per seed."
    )


# Numbers with intervals.


def scores_of(results: Results, row: PolicyRow, column: Column) -> SeedScores:
    """Scores of a row's policies, one line per policy, prompts sorted by prompt_id; NaN = no score.

    With `primary.over`, a run's score on a prompt is the mean over its last checkpoints.
    """
    return np.array([_policy_scores(results, folder, column) for folder in row.folders.values()]).reshape(
        len(row.folders), len(results.prompts[column.set])
    )


def _policy_scores(results: Results, folder: str, column: Column) -> Float[np.ndarray, " items"]:
    found = [column_scores(results, scores, column) for scores in results.averaged(folder, column.set)]
    return np.mean(np.array(found), axis=0)


def column_scores(results: Results, scores: PolicyScores, column: Column) -> Float[np.ndarray, " items"]:
    """One policy's scores of a column, prompts sorted by prompt_id; NaN = no score."""
    if not column.metric.startswith(PASS_AT):
        return scores.mean_by_prompt(column.mode, column.metric)
    return scores.pass_at(column.mode, results.study.primary.metric, int(column.metric.removeprefix(PASS_AT)))


def estimate(scores: SeedScores, unit: Unit, confidence: float, limits: tuple[float, float] | None = None) -> Estimate:
    """Mean over seeds and items, with its crossed interval.

    Args:
        scores: shape (num_policies, num_items); NaN = no score.
        unit: their unit.
        confidence: level of the interval.
        limits: smallest and largest value, which bound the interval; None = from the unit and the scores.
    """
    if limits is not None:
        return _stretched(estimate((scores - limits[0]) / (limits[1] - limits[0]), "share", confidence), limits)
    interval = crossed_interval(scores, confidence)
    low, high = _level_ends(interval, _of_shares(unit, [scores]))
    return Estimate(
        mean=tidy(interval.mean),
        low=low,
        high=high,
        num_seeds=interval.num_seeds,
        num_items=interval.num_items,
        covers=_covers(interval),
        by_seed=means_by_seed(scores),
    )


def _stretched(found: Estimate, limits: tuple[float, float]) -> Estimate:
    """An estimate from 0 to 1 on the scale of the limits."""

    def value(share: float | None) -> float | None:
        return None if share is None else tidy(limits[0] + (limits[1] - limits[0]) * share)

    ends = {"mean": value(found.mean), "low": value(found.low), "high": value(found.high)}
    return found.model_copy(update=ends | {"by_seed": tuple(value(one) for one in found.by_seed)})


def means_by_seed(scores: SeedScores) -> tuple[float | None, ...]:
    """The mean of each seed over its scored items."""
    rows: list[Float[np.ndarray, " items"]] = list(scores)
    return tuple(tidy(float(np.nanmean(line))) if np.isfinite(line).any() else None for line in rows)


def difference(
    arm: SeedScores, reference: SeedScores, unit: Unit, confidence: float, matched_seeds: bool
) -> PairedDifference:
    """Arm minus reference over the same prompts; `matched_seeds` as in `rlassay.stats.paired_difference`."""
    return contrast_difference((arm, reference), (1.0, -1.0), unit, confidence, matched_seeds)


def contrast_difference(
    cells: Sequence[SeedScores], weights: Sequence[float], unit: Unit, confidence: float, matched_seeds: bool
) -> PairedDifference:
    """A weighted sum of the scores of arms over the same prompts, as in `rlassay.stats.contrast`."""
    interval = contrast(cells, weights, confidence, matched_seeds=matched_seeds)
    reach = sum(weight for weight in weights if weight > 0)
    low, high = _difference_ends(interval, reach if _of_shares(unit, cells) else inf)
    return PairedDifference(
        effect=tidy(interval.mean),
        low=low,
        high=high,
        p_value=tidy_p(interval.p_value),
        p_holm=None,
        family_size=0,
        num_seeds=interval.num_seeds,
        num_items=interval.num_items,
        covers=_covers(interval),
    )


def over_seeds(
    values: Float[np.ndarray, " seeds"], num_items: int, confidence: float, limits: tuple[float, float] | None = None
) -> Estimate:
    """Mean of one value per seed, with Student's interval over the seeds.

    The interval stays inside `limits`, as in `seed_band`.
    """
    band = seed_band(values[:, None], confidence, limits)
    num_seeds = int(band.num_seeds[0])
    return Estimate(
        mean=tidy(band.mean[0]),
        low=tidy(band.low[0]),
        high=tidy(band.high[0]),
        num_seeds=num_seeds,
        num_items=num_items,
        covers="seeds" if num_seeds > 1 else "nothing",
    )


def cut_at_0(
    metric: str, mean: float | Float[np.ndarray, " points"], low: float | Float[np.ndarray, " points"]
) -> Float[np.ndarray, "..."]:
    """Lower ends of a metric's intervals, cut at 0 if it is never negative.

    They are at most their means. The k1 estimate of a KL, whose true value is not negative, may itself be.
    """
    return np.asarray(np.maximum(low, np.minimum(mean, 0.0)) if metric in NEVER_NEGATIVE else low, dtype=float)


def _of_shares(unit: Unit, cells: Sequence[SeedScores]) -> bool:
    """Whether the scores are shares or all in [0, 1], and so their mean."""
    return unit == "share" or (unit == "value" and all(are_shares(cell) for cell in cells))


def _level_ends(interval: Interval, of_shares: bool) -> tuple[float | None, float | None]:
    """Ends of the interval of a mean; that of shares has Wilson's form, which does not leave [0, 1]."""
    low, high = interval.low, interval.high
    if of_shares and 0 < interval.mean < 1 and not isnan(low):
        low, high = share_interval(interval.mean, (high - low) / 2)
    return tidy(low), tidy(high)


def _difference_ends(interval: Interval, reach: float) -> tuple[float | None, float | None]:
    """Ends of the interval of a difference, clipped to -reach..reach, which does not change coverage."""
    low, high = interval.low, interval.high
    if not isnan(low):
        low, high = max(low, -reach), min(high, reach)
    return tidy(low), tidy(high)


def _covers(interval: Interval) -> Covers:
    if isnan(interval.low):
        return "nothing"
    return "seeds and items" if interval.num_seeds > 1 else "items"


def tidy(value: float) -> float | None:
    """A number as in report.json: rounded, None when undefined, never minus zero."""
    return None if isnan(value) else round(float(value), STORED_DECIMALS) + 0.0


def tidy_p(p_value: float) -> float | None:
    """A p-value to six significant digits, because readers compare small ones by magnitude; None for NaN."""
    return None if isnan(p_value) else float(f"{p_value:.6g}")


# Columns.


def primary_column(results: Results) -> Column:
    """The column that the verdicts compare."""
    primary = results.study.primary
    return _column(results, primary.set, primary.metric, primary.mode)


def other_modes(results: Results) -> list[Column]:
    """The other modes of the primary metric on its set.

    They are the other decoding mode, and pass@k for the largest k.
    """
    primary = results.study.primary
    return [column for column in columns_of_primary(results, primary.set) if not column.primary]


def columns_of_primary(results: Results, name: str) -> list[Column]:
    """The primary metric on one set, sampled and greedy, and pass@k for the largest k."""
    metric = results.study.primary.metric
    columns = _columns(results, (metric,), name)
    if _is_binary(results, metric) and len(_ks(results)) > 1:
        columns.append(_pass_column(results, name, _ks(results)[-1]))
    return columns


def _main_columns(results: Results) -> list[Column]:
    """Per set: sampled and greedy primary metric, pass@k, lenient accuracy, then the other rewards."""
    primary = results.study.primary
    columns: list[Column] = []
    for name in results.study.evaluation.sets:
        columns += columns_of_primary(results, name)
        others = ["choice_accuracy", "choice_accuracy_lenient", *results.study.rewards, *_custom_metrics(results)]
        seen = dict.fromkeys(metric for metric in others if metric != primary.metric)
        columns += [_column(results, name, metric, "sampled") for metric in seen if _exists(results, metric)]
    return columns


def _custom_metrics(results: Results) -> list[str]:
    """Metrics that custom rewards return beside their values: `<reward>/<metric>`."""
    columns = {name for scores in results.scores.values() for name in scores.metrics}
    return sorted(name for name in columns if name.split("/")[0] in results.study.rewards and "/" in name)


def _columns(results: Results, metrics: tuple[str, ...], only: str | None = None) -> list[Column]:
    modes: list[Mode] = [mode for mode, count in results.study.evaluation.modes.items() if count]
    sets = results.study.evaluation.sets if only is None else (only,)
    found = [metric for metric in metrics if _exists(results, metric)]
    return [_column(results, name, metric, mode) for name in sets for metric in found for mode in modes]


def _pass_column(results: Results, name: str, k: int) -> Column:
    title = f"{in_words(results.study.primary.metric)}, pass@{k}"
    return _column(results, name, f"{PASS_AT}{k}", "sampled", title)


def _column(results: Results, name: str, metric: str, mode: Mode, title: str | None = None) -> Column:
    primary = results.study.primary
    if title is None:
        averaged = mode == "sampled" and metric not in (*LENGTH, *PARSING)
        how = f"avg@{results.study.evaluation.num_samples}" if averaged else mode
        title = f"{in_words(metric)}, {how}"
    return Column(
        key=f"{name}/{metric}/{mode}",
        set=name,
        metric=metric,
        mode=mode,
        title=title if len(results.study.evaluation.sets) == 1 else f"{name}: {title}",
        unit=_unit(results, metric),
        limits=_limits(results, metric),
        better="lower" if metric in LOWER_IS_BETTER else "neither" if metric == "token_count" else "higher",
        primary=(name, metric, mode) == (primary.set, primary.metric, primary.mode),
    )


def _unit(results: Results, metric: str) -> Unit:
    if metric == "token_count":
        return "tokens"
    return "share" if metric.startswith(PASS_AT) or _is_binary(results, metric) else "value"


def value_limits(results: Results, metric: str) -> tuple[float, float] | None:
    """Smallest and largest value of a metric, or None where they are unknown.

    They follow from its formula, or are 0 and 1 if all held-out scores are in [0, 1].
    """
    limits = _limits(results, metric)
    if limits is None and any(scores.has(metric) for scores in results.scores.values()):
        limits = SHARE_LIMITS if all(scores.are_shares(metric) for scores in results.scores.values()) else None
    return limits


def _limits(results: Results, metric: str) -> tuple[float, float] | None:
    reward = results.study.rewards.get(metric)
    return None if reward is None else LIMITS.get(reward.kind or metric)


def _is_binary(results: Results, metric: str) -> bool:
    return bool(results.scores) and all(metric in scores.binary for scores in results.scores.values())


def _exists(results: Results, metric: str) -> bool:
    """Whether a metric has a column.

    The primary metric always has one, others if any completion has a score. Prompts without options have no scores of
    choice metrics.
    """
    return metric == results.study.primary.metric or any(scores.has(metric) for scores in results.scores.values())


def _ks(results: Results) -> list[int]:
    """Powers of two up to the number of samples, and that number."""
    samples = results.study.evaluation.num_samples
    return sorted({samples, *(2**power for power in range(samples.bit_length()))})

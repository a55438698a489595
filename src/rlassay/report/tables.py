"""The tables of the page: which metrics of which sets stand in them, and their cells."""

from typing import Literal

from rlassay.report.estimates import PASS_AT, estimate, scores_of
from rlassay.report.gather import Results
from rlassay.report.numbers import Column, Table, TableName, TableRow, Unit
from rlassay.report.reading import DISAGREEMENT

Mode = Literal["sampled", "greedy"]

TITLES = {
    "choice_accuracy": "accuracy",
    "choice_accuracy_lenient": "accuracy, lenient parser",
    "think_answer_format": "format",
    "strict_think_answer_format": "strict format",
    "token_count": "completion length",
    "truncated": "truncated",
    "parse_failure": "parse failures, strict",
    "parse_failure_lenient": "parse failures, lenient",
    DISAGREEMENT: "strict and lenient disagree",
}
"""Metric -> heading, where its name is none."""
LOWER = {"truncated", "parse_failure", "parse_failure_lenient", DISAGREEMENT}
"""Metrics of which less is better."""
LENGTH = ("token_count", "truncated")
PARSING = ("parse_failure", "parse_failure_lenient", DISAGREEMENT)
LENGTH_NOTE = "Completion tokens with the end-of-sequence token; truncated = cut off at the length limit."
PARSING_NOTE = (
    "A parse failure is a completion in which a parser finds no answer, or several that contradict each other; it "
    "scores 0. Rewards use the strict parser only. The lenient one is independent of it: a gain in accuracy that it "
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
        tables.append(_table(results, "parsing", "Answers that no parser finds", PARSING_NOTE, parsing, confidence))
    if _is_binary(results, results.study.primary.metric):
        columns = [_pass_column(results, name, k) for name in results.study.evaluation.sets for k in _ks(results)]
        tables.append(_table(results, "pass_at_k", "pass@k", PASS_NOTE, columns, confidence))
    return {table.name: table for table in tables}


def primary_column(results: Results) -> Column:
    """The column that the verdicts are about."""
    primary = results.study.primary
    return _column(results, primary.set, primary.metric, primary.mode)


def _table(results: Results, name: TableName, title: str, note: str, columns: list[Column], confidence: float) -> Table:
    rows = [
        TableRow(
            row=row.key,
            kind=row.kind,
            label=row.label,
            cells=tuple(estimate(scores_of(results, row, column), column.unit, confidence) for column in columns),
        )
        for row in results.rows.values()
    ]
    return Table(name=name, title=title, note=note, columns=tuple(columns), rows=tuple(rows))


def _main_note(results: Results) -> str:
    samples = results.study.evaluation.num_samples
    return (
        f"Sampled metrics are means over {samples} completions per prompt (avg@{samples}). The untrained model is one "
        "policy for all seeds, and so is SFT unless the study trains a warm start per seed."
    )


def _main_columns(results: Results) -> list[Column]:
    """Per set: the primary metric sampled and greedy, pass@k, the lenient accuracy, then every other reward."""
    primary = results.study.primary
    columns: list[Column] = []
    for name in results.study.evaluation.sets:
        columns += _columns(results, (primary.metric,), name)
        if _is_binary(results, primary.metric) and len(_ks(results)) > 1:
            columns.append(_pass_column(results, name, _ks(results)[-1]))
        others = ["choice_accuracy", "choice_accuracy_lenient", *results.study.rewards]
        seen = dict.fromkeys(metric for metric in others if metric != primary.metric)
        columns += [_column(results, name, metric, "sampled") for metric in seen if _exists(results, metric)]
    return columns


def _columns(results: Results, metrics: tuple[str, ...], only: str | None = None) -> list[Column]:
    modes: list[Mode] = ["sampled", "greedy"] if results.study.evaluation.greedy else ["sampled"]
    sets = results.study.evaluation.sets if only is None else (only,)
    found = [metric for metric in metrics if _exists(results, metric)]
    return [_column(results, name, metric, mode) for name in sets for metric in found for mode in modes]


def _pass_column(results: Results, name: str, k: int) -> Column:
    metric = results.study.primary.metric
    title = f"{heading(metric)}, pass@{k}"
    return _column(results, name, f"{PASS_AT}{k}", "sampled", title)


def _column(results: Results, name: str, metric: str, mode: Mode, title: str | None = None) -> Column:
    primary = results.study.primary
    if title is None:
        averaged = mode == "sampled" and metric not in (*LENGTH, *PARSING)
        how = f"avg@{results.study.evaluation.num_samples}" if averaged else mode
        title = f"{heading(metric)}, {how}"
    return Column(
        key=f"{name}/{metric}/{mode}",
        set=name,
        metric=metric,
        mode=mode,
        title=title if len(results.study.evaluation.sets) == 1 else f"{name}: {title}",
        unit=_unit(results, metric),
        better="lower" if metric in LOWER else "neither" if metric == "token_count" else "higher",
        primary=(name, metric, mode) == (primary.set, primary.metric, primary.mode),
    )


def heading(metric: str) -> str:
    """A metric in words."""
    return TITLES.get(metric, metric.replace("_", " "))


def _unit(results: Results, metric: str) -> Unit:
    if metric == "token_count":
        return "tokens"
    return "share" if metric.startswith(PASS_AT) or _is_binary(results, metric) else "value"


def _is_binary(results: Results, metric: str) -> bool:
    return bool(results.scores) and all(metric in scores.binary for scores in results.scores.values())


def _exists(results: Results, metric: str) -> bool:
    """Whether a metric has a column: the primary one always, another if it could be judged anywhere.

    Where prompts have no options to choose from, no metric of choices could be.
    """
    if metric == results.study.primary.metric:
        return True
    frames = [scores.counts for scores in results.scores.values()]
    found = [frame.loc[:, frame.columns.get_level_values("metric") == metric] for frame in frames]
    return any(bool(frame.to_numpy().any()) for frame in found)


def _ks(results: Results) -> list[int]:
    """Powers of two up to the number of samples, and that number."""
    samples = results.study.evaluation.num_samples
    return sorted({samples, *(2**power for power in range(samples.bit_length()))})

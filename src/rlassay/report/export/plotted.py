"""The data behind each figure, as the rows of `figures/<figure>.csv`."""

from collections.abc import Iterator, Sequence
from typing import Any

from rlassay.report.content import Comparison, Content
from rlassay.report.figures import ATTRIBUTION_FIGURES
from rlassay.report.figures_style import file_name
from rlassay.report.findings.profiles import profile_rows
from rlassay.report.findings.records import HeldOutCurve
from rlassay.report.findings.sentences import primary_of
from rlassay.report.numbers import Curve, Estimate, PairedDifference, Table
from rlassay.report.plots.lines import held_out_names

Rows = list[dict[str, Any]]


def plotted_rows(content: Content) -> dict[str, Rows]:
    """Figure name -> one row per mark: arm or policy, place, mean and interval."""
    main, primary = content.tables["main"], primary_of(content)
    place = main.columns.index(primary)
    found = {
        "levels": [{"policy": row.row, "label": row.label, **_numbers(row.cells[place])} for row in main.rows],
        "forest_baseline": list(_comparisons(content.verdicts)),
        "forest_start": list(_comparisons(content.gains)),
    }
    if "pass_at_k" in content.tables:
        found["pass_at_k"] = list(_pass_at_k(content.tables["pass_at_k"], primary.set))
    if content.attribution is not None:
        for name, (_, kinds) in ATTRIBUTION_FIGURES.items():
            found[name] = [
                {"kind": method.kind, "label": one.label, **_numbers(one.difference), **_seeds(one.by_seed)}
                for method in content.attribution.methods
                if method.kind in kinds
                for one in method.effects
            ]
    found |= {f"curve_{file_name(curve.metric)}": list(_curve(curve)) for curve in content.curves}
    if content.held_out is not None:
        for curve in content.held_out.curves:
            found |= {name: list(_held_out(curve)) for name in held_out_names(content.held_out, curve)}
    if content.profiles is not None:
        found["profiles"] = profile_rows(content.profiles)
    if content.frontier is not None:
        found["frontier"] = [run.model_dump() for run in content.frontier.runs]
    for reward in dict.fromkeys(part.reward for part in content.rewards):
        found[f"reward_{file_name(reward)}"] = [
            {"arm": part.arm, "weight": part.weight, "before": part.first.mean, **_numbers(part.last)}
            for part in content.rewards
            if part.reward == reward
        ]
    return {name: rows for name, rows in found.items() if rows}


def _held_out(curve: HeldOutCurve) -> Iterator[dict[str, Any]]:
    for series in curve.series:
        for point in series.points:
            places = point.model_dump(exclude={"score"})
            yield {"arm": series.arm, **places, **_numbers(point.score)}


def _comparisons(found: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    for one in found:
        numbers = {} if one.difference is None else _numbers(one.difference)
        yield {"arm": one.arm, "reference": one.reference, "outcome": one.outcome, **numbers, **_seeds(one.by_seed)}


def _pass_at_k(table: Table, name: str) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if column.set == name:
                k = int(column.metric.rsplit("_", 1)[1])
                yield {"policy": row.row, "label": row.label, "k": k, **_numbers(cell)}


def _curve(curve: Curve) -> Iterator[dict[str, Any]]:
    for series in curve.series:
        for step, mean, low, high in zip(series.steps, series.mean, series.low, series.high, strict=True):
            yield {"arm": series.arm, "step": step, "mean": mean, "low": low, "high": high}


def _numbers(found: Estimate | PairedDifference) -> dict[str, Any]:
    middle = found.mean if isinstance(found, Estimate) else found.effect
    ends = {"mean": middle, "low": found.low, "high": found.high}
    seeds = _seeds(found.by_seed) if isinstance(found, Estimate) else {}
    return ends | {"num_seeds": found.num_seeds, "num_items": found.num_items} | seeds


def _seeds(values: tuple[float | None, ...]) -> dict[str, Any]:
    """A column per seed, by position."""
    return {f"seed_{place}": value for place, value in enumerate(values, 1)}

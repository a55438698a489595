# pyright: basic
# matplotlib types its methods only in part, so strict mode would report every call that draws.
"""Draws every figure of the report from its content.

Figures of one kind share a layout: an interval per row (levels, differences, rewards), a line per arm over the steps
(learning curves), and a line per policy over k (pass@k). Colours, fonts and the SVG itself are in `figures_style`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlassay.report.content import Comparison, Content
from rlassay.report.figures_style import (
    HAIR,
    INK,
    LIGHT_PAPER,
    MARKERS,
    NEUTRAL,
    PALETTE,
    SOFT,
    Drawing,
    Mark,
    canvas,
    finish,
    house_style,
    readable,
    standalone,
)
from rlassay.report.findings.records import Attribution, AttributionKind, AttributionMethod, IngredientEffect
from rlassay.report.numbers import Column, Curve, Estimate, PairedDifference, RewardPart, Series, Table, TableRow, Unit
from rlassay.report.typeset import EFFECT_UNIT, LEVEL_UNIT, number, one_line, quoted, scaled, with_interval

ROWS_WIDTH, ROW_HEIGHT = 360, 42
"""Pixels of a figure with one interval per row."""
ROWS_MARGINS = (1, 8, 28, 40)
"""Left, right, top, bottom, pixels; as in `canvas`."""
CURVE_SIZE, PASS_AT_K_SIZE = (270, 190), (360, 310)
"""Width and height, pixels."""
LINE_MARGINS = (38, 6, 34, 34)
"""Margins of learning curves and of pass@k."""
LEGEND_WIDTH, LEGEND_COLUMNS, LEGEND_ROW = 640, 2, 22
TITLE_FROM_TOP = 13
"""Pixels from the upper edge to the middle of a title."""
ALT_LENGTH = 600
"""Characters of the text for readers who do not see a figure."""


def assign_marks(content: Content) -> dict[str, Mark]:
    """Colour and marker of every table row, the same in all figures.

    An arm gets its own colour or the palette's next one; a policy without RL is grey.
    """
    shapes = tuple(MARKERS)
    without_rl = [row for row in content.tables["main"].rows if row.kind != "arm"]
    marks = {
        row.row: Mark(label=row.label, color=NEUTRAL, marker=shapes[-1 - place % len(shapes)])
        for place, row in enumerate(without_rl)
    }
    for place, arm in enumerate(content.arms):
        color = readable((arm.color or PALETTE[place % len(PALETTE)]).lower(), LIGHT_PAPER)
        # The shapes shift by one with each round of colours, so that no two arms share both.
        shape = shapes[(place + place // len(PALETTE)) % len(shapes)]
        marks[arm.name] = Mark(label=arm.label, color=color, marker=shape)
    return marks


def draw_figures(content: Content, marks: dict[str, Mark]) -> list[Drawing]:
    """All figures, in the order of the page."""
    primary = next(column for column in content.tables["main"].columns if column.primary)
    baseline = quoted(marks[content.study.baseline].label)
    with house_style():
        drawings = [draw_levels(content, marks)]
        if "pass_at_k" in content.tables:
            drawings.append(draw_pass_at_k(content.tables["pass_at_k"], primary.set, marks))
        for name, title, comparisons in (
            ("forest_baseline", f"Difference from arm {baseline}", content.verdicts),
            ("forest_start", "Difference from the policy before RL", content.gains),
        ):
            drawings += [draw_forest(name, title, comparisons, primary, marks)] if comparisons else []
        if content.attribution is not None and any(method.effects for method in content.attribution.methods):
            drawings.append(draw_attribution(content.attribution, primary))
        drawings.append(draw_legend([marks[arm.name] for arm in content.arms]))
        drawings += [draw_curve(curve, marks) for curve in content.curves]
        for reward in dict.fromkeys(part.reward for part in content.rewards):
            drawings.append(draw_reward(reward, [part for part in content.rewards if part.reward == reward], marks))
    return drawings


def write_figures(drawings: Iterable[Drawing], marks: dict[str, Mark], folder: Path) -> None:
    """Write `<name>.svg` for each drawing; figures of an earlier report are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.svg"):
        stale.unlink()
    for drawing in drawings:
        text = standalone(drawing, [mark.color for mark in marks.values()])
        (folder / f"{drawing.name}.svg").write_text(text, encoding="utf-8")


def file_name(name: str) -> str:
    """A metric's or reward's name as part of a file name."""
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name).strip("_")


# One interval per row.


EFFECT_ROWS: dict[AttributionKind, tuple[str, str]] = {
    "shapley": ("Shapley: ", "D"),
    "main_effect": ("main: ", "o"),
    "leave_one_out": ("left out: ", "v"),
    "add_one_in": ("added: ", "^"),
    "interaction": ("", "X"),
}
"""Kind of attribution -> how its rows begin, and their marker."""


@dataclass(frozen=True, kw_only=True)
class IntervalRow:
    """One row of a figure: name on the left, numbers on the right, interval and mean below them."""

    mark: Mark
    """Name, colour and marker."""
    estimate: Estimate | PairedDifference | None
    """Mean or effect with its interval; None = no results yet."""
    text: str
    """The same as text."""
    filled: bool = True
    """Whether the marker is filled."""
    before: float | None = None
    """An earlier value: a ring, joined to the mean by a thin line."""
    seeds: tuple[float | None, ...] = ()
    """The value of each seed: small dots below the interval."""


def draw_levels(content: Content, marks: dict[str, Mark]) -> Drawing:
    """The primary metric of every policy with its interval."""
    table = content.tables["main"]
    place, column = next((place, column) for place, column in enumerate(table.columns) if column.primary)
    rows = [_level_row(row, place, column.unit, marks) for row in table.rows]
    figure, axes = _draw_rows(column.title, rows, column.unit)
    _label_axis(axes, LEVEL_UNIT[column.unit], column)
    return finish(figure, "levels", "results", _describe_rows(column.title, rows))


def _level_row(row: TableRow, place: int, unit: Unit, marks: dict[str, Mark]) -> IntervalRow:
    cell = row.cells[place]
    text = with_interval(cell.mean, cell, unit)
    return IntervalRow(mark=marks[row.row], estimate=cell, text=text, seeds=_several(cell.by_seed))


def draw_forest(
    name: str, title: str, comparisons: Sequence[Comparison], column: Column, marks: dict[str, Mark]
) -> Drawing:
    """Each arm's difference from its reference with its interval; a filled marker means a resolved difference."""
    rows = [_difference_row(comparison, column.unit, marks) for comparison in comparisons]
    figure, axes = _draw_rows(title, rows, column.unit, zero=True)
    _label_axis(axes, f"difference, {EFFECT_UNIT[column.unit]}".rstrip(", "), column)
    return finish(figure, name, "verdicts", _describe_rows(title, rows))


def _difference_row(comparison: Comparison, unit: Unit, marks: dict[str, Mark]) -> IntervalRow:
    found = comparison.difference
    text = "no results yet" if found is None else with_interval(found.effect, found, unit, signed=True)
    resolved = comparison.outcome in ("better", "worse", "equivalent")
    seeds = _several(comparison.by_seed)
    return IntervalRow(mark=marks[comparison.arm], estimate=found, text=text, filled=resolved, seeds=seeds)


def draw_attribution(attribution: Attribution, column: Column) -> Drawing:
    """What each ingredient adds, by every method; a filled marker means that the interval excludes 0."""
    rows = [_effect_row(method, one, column.unit) for method in attribution.methods for one in method.effects]
    title = "What each ingredient adds"
    figure, axes = _draw_rows(title, rows, column.unit, zero=True)
    _label_axis(axes, f"difference, {EFFECT_UNIT[column.unit]}".rstrip(", "), column)
    return finish(figure, "attribution", "attribution", _describe_rows(title, rows))


def _effect_row(method: AttributionMethod, one: IngredientEffect, unit: Unit) -> IntervalRow:
    found = one.difference
    short, marker = EFFECT_ROWS[method.kind]
    mark = Mark(label=f"{short}{one.label}", color=INK, marker=marker)
    clear = found.num_seeds > 1 and found.low is not None and found.high is not None and found.low * found.high > 0
    text = with_interval(found.effect, found, unit, signed=True)
    return IntervalRow(mark=mark, estimate=found, text=text, filled=clear, seeds=_several(one.by_seed))


def _several(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """The values of two or more seeds; that of a single one is the mean itself."""
    return values if len(values) > 1 else ()


def draw_reward(reward: str, parts: Sequence[RewardPart], marks: dict[str, Mark]) -> Drawing:
    """One reward's raw value in every arm, in the first tenth (ring) and the last tenth of the steps."""
    rows = [_before_after_row(part, marks) for part in parts]
    figure, axes = _draw_rows(reward, rows, "value")
    axes.set_xlabel("raw value: first tenth of the steps (ring), last tenth")
    alt = _describe_rows(f"{reward}, raw value before and after RL", rows)
    return finish(figure, f"reward_{file_name(reward)}", "rewards", alt)


def _before_after_row(part: RewardPart, marks: dict[str, Mark]) -> IntervalRow:
    role = f"weight {part.weight:g}" if part.role == "trained" else "logged only"
    text = f"{number(part.first.mean, 'value')} → {number(part.last.mean, 'value')}  {role}"
    return IntervalRow(
        mark=marks[part.arm], estimate=part.last, text=text, filled=part.role == "trained", before=part.first.mean
    )


def _describe_rows(title: str, rows: Sequence[IntervalRow]) -> str:
    return one_line(f"{title}: " + "; ".join(f"{row.mark.label} {row.text}" for row in rows), ALT_LENGTH)


def _draw_rows(title: str, rows: Sequence[IntervalRow], unit: Unit, zero: bool = False) -> tuple[Figure, Axes]:
    left, _, top, bottom = ROWS_MARGINS
    height = top + ROW_HEIGHT * len(rows) + bottom
    figure, axes = canvas(ROWS_WIDTH, height, ROWS_MARGINS)
    _title(figure, left / ROWS_WIDTH, height, one_line(title, 52))
    axes.set_ylim(len(rows) - 0.5 + 0.2, -0.5)
    axes.set_yticks([])
    axes.set_xlim(*_row_limits(rows, unit, zero))
    axes.grid(visible=False)
    for place, row in enumerate(rows):
        if zero:  # a short stroke beside each interval, so that it crosses no text
            axes.plot([0, 0], [place + 0.08, place + 0.32], color=SOFT, linewidth=1.5)
        _draw_row(axes, place, row, unit)
    return figure, axes


def _draw_row(axes: Axes, place: int, row: IntervalRow, unit: Unit) -> None:
    y, color = place + 0.2, row.mark.color
    _row_text(axes, (0.0, y), one_line(row.mark.label, 30), INK, "left")
    _row_text(axes, (1.0, y), one_line(row.text, 44), SOFT, "right")
    axes.axhline(y, color=HAIR, linewidth=0.8)
    middle, low, high = _numbers(row.estimate)
    if middle is None:
        return
    if low is not None and high is not None:
        axes.plot([scaled(low, unit), scaled(high, unit)], [y, y], color=color, linewidth=2.6)
    if row.before is not None:
        axes.plot([row.before, middle], [y, y], color=color, linewidth=0.9)
        axes.plot(row.before, y, marker="o", markersize=6, color=color, markerfacecolor=LIGHT_PAPER)
    for value in row.seeds:
        if value is not None:
            axes.plot(scaled(value, unit), y + 0.2, marker="o", markersize=3.4, color=color, alpha=0.75)
    face = color if row.filled else LIGHT_PAPER
    axes.plot(scaled(middle, unit), y, marker=row.mark.marker, markersize=8, color=color, markerfacecolor=face)


def _row_text(axes: Axes, point: tuple[float, float], text: str, color: str, align: str) -> None:
    """Text 7 points above a row's line; `point` is in fractions of the width and in rows."""
    axes.annotate(
        text,
        point,
        (0, 7),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="bottom",
        ha=align,
        color=color,
    )


def _numbers(estimate: Estimate | PairedDifference | None) -> tuple[float | None, float | None, float | None]:
    if estimate is None:
        return None, None, None
    middle = estimate.mean if isinstance(estimate, Estimate) else estimate.effect
    return middle, estimate.low, estimate.high


def _row_limits(rows: Sequence[IntervalRow], unit: Unit, zero: bool) -> tuple[float, float]:
    """A range with some air that holds every interval and, if `zero`, the value 0."""
    known = [value for row in rows for value in (*_numbers(row.estimate), row.before, *row.seeds) if value is not None]
    values = [scaled(value, unit) for value in known] + ([0.0] if zero or not known else [])
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.5
    return low - air, high + air


def _label_axis(axes: Axes, unit: str, column: Column) -> None:
    side = {"higher": " · further right is better", "lower": " · further left is better", "neither": ""}[column.better]
    axes.set_xlabel((unit + side).removeprefix(" · "))


# One line per arm over the steps.


def draw_curve(curve: Curve, marks: dict[str, Mark]) -> Drawing:
    """One metric over the optimiser steps; the y axis fits the means, so that a wide band does not flatten them."""
    unit = f", {LEVEL_UNIT[curve.unit]}" if LEVEL_UNIT[curve.unit] else ""
    figure, axes = _line_canvas(CURVE_SIZE, one_line(curve.title + unit, 40))
    for series in curve.series:
        _draw_series(axes, series, marks[series.arm], curve.unit)
    axes.set_xlabel("step", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylim(*_curve_limits(curve))
    return finish(figure, f"curve_{file_name(curve.metric)}", curve.group, _describe_curve(curve, marks))


def _draw_series(axes: Axes, series: Series, mark: Mark, unit: Unit) -> None:
    mean, low, high = (_plotted(values, unit) for values in (series.mean, series.low, series.high))
    axes.fill_between(series.steps, low, high, color=mark.color, alpha=0.12, linewidth=0)
    every = max(1, len(series.steps) // 6)
    axes.plot(series.steps, mean, color=mark.color, marker=mark.marker, markevery=(every // 2, every), markersize=4.5)


def _plotted(values: Sequence[float | None], unit: Unit) -> np.ndarray:
    """The values on the scale of the figure; NaN, which leaves a gap, for None."""
    return np.array([np.nan if value is None else scaled(value, unit) for value in values])


def _curve_limits(curve: Curve) -> tuple[float, float]:
    """Limits of the y axis: every mean fits, and of the bands as much as fits in twice that span."""
    means = np.concatenate([_plotted(series.mean, curve.unit) for series in curve.series] or [np.array([np.nan])])
    bands = [_plotted(ends, curve.unit) for series in curve.series for ends in (series.low, series.high)]
    finite = means[np.isfinite(means)]
    if not finite.size:
        return 0.0, 1.0
    low, high = finite.min(), finite.max()
    room = 0.5 * (high - low) or 0.05 * max(abs(high), 1.0)
    ends = np.concatenate(bands)
    ends = np.concatenate([ends[np.isfinite(ends)], finite])
    low, high = max(ends.min(), low - room), min(ends.max(), high + room)
    if curve.unit == "share":
        low, high = max(low, 0.0), min(high, 100.0)
    air = 0.05 * (high - low) or room
    return low - air, high + air


def _describe_curve(curve: Curve, marks: dict[str, Mark]) -> str:
    parts: list[str] = []
    for series in curve.series:
        known = [value for value in series.mean if value is not None]
        if known:
            ends = f"from {number(known[0], curve.unit)} to {number(known[-1], curve.unit)}"
            parts.append(f"{marks[series.arm].label} {ends}")
    return one_line(f"{curve.title} over training: " + "; ".join(parts), ALT_LENGTH)


# One line per policy over k, and the legend.


def draw_pass_at_k(table: Table, evaluation_set: str, marks: dict[str, Mark]) -> Drawing:
    """The chance that at least one of k completions is right, for every policy on one evaluation set; log2 axis."""
    title = "At least one of k completions is right, %"
    figure, axes = _line_canvas(PASS_AT_K_SIZE, title)
    places = [place for place, column in enumerate(table.columns) if column.set == evaluation_set]
    ks = [int(table.columns[place].metric.rsplit("_", 1)[1]) for place in places]
    ends: list[str] = []
    for row in table.rows:
        cells = [row.cells[place] for place in places]
        _draw_cells(axes, ks, cells, marks[row.row])
        ends.append(f"{row.label} from {number(cells[0].mean, 'share')} to {number(cells[-1].mean, 'share')}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_xlabel("k", labelpad=1)
    alt = f"{title}, from k = {ks[0]} to k = {ks[-1]}: {'; '.join(ends)}"
    return finish(figure, "pass_at_k", "results", one_line(alt, ALT_LENGTH))


def _draw_cells(axes: Axes, ks: list[int], cells: list[Estimate], mark: Mark) -> None:
    columns = zip(*((cell.mean, cell.low, cell.high) for cell in cells), strict=True)
    mean, low, high = (_plotted(values, "share") for values in columns)
    axes.fill_between(ks, low, high, color=mark.color, alpha=0.12, linewidth=0)
    axes.plot(ks, mean, color=mark.color, marker=mark.marker, markersize=6)


def draw_legend(marks: list[Mark]) -> Drawing:
    """Colour and marker of every arm, for readers of the files; the page has its own legend."""
    labels = [one_line(mark.label, 44) for mark in marks]
    height = LEGEND_ROW * -(-len(marks) // LEGEND_COLUMNS) + 6
    figure = Figure(figsize=(LEGEND_WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, LEGEND_WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    for place, (mark, label) in enumerate(zip(marks, labels, strict=True)):
        x = 10 + LEGEND_WIDTH // LEGEND_COLUMNS * (place % LEGEND_COLUMNS)
        y = 14 + LEGEND_ROW * (place // LEGEND_COLUMNS)
        axes.plot([x, x + 24], [y, y], color=mark.color)
        axes.plot(x + 12, y, color=mark.color, marker=mark.marker, markersize=6)
        axes.text(x + 32, y, label, va="center")
    return finish(figure, "legend", "legend", "Legend: " + ", ".join(labels))


def _line_canvas(size: tuple[int, int], title: str) -> tuple[Figure, Axes]:
    figure, axes = canvas(*size, LINE_MARGINS)
    _title(figure, 0.004, size[1], title)
    axes.grid(axis="x", visible=False)
    return figure, axes


def _title(figure: Figure, x: float, height: int, text: str) -> None:
    figure.text(x, 1 - TITLE_FROM_TOP / height, text, weight="bold", va="center")

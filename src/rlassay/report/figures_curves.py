"""Learning curves: one small panel per metric, every arm in its own colour and marker, a band over the seeds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlassay.report.figures_rows import slug
from rlassay.report.figures_style import Drawing, Mark, canvas, finish
from rlassay.report.numbers import Curve, Estimate, Series, Table, Unit
from rlassay.report.typeset import LEVEL_UNIT, number, one_line, scaled

WIDTH, HEIGHT, MARGINS = 270, 190, (38, 6, 34, 34)
PASS_WIDTH, PASS_HEIGHT = 360, 310


def draw_curve(curve: Curve, marks: dict[str, Mark]) -> Drawing:
    """One metric over the optimiser steps; the axis spans the means, so that a wide band does not flatten them."""
    figure, axes = canvas(WIDTH, HEIGHT, MARGINS)
    unit = f", {LEVEL_UNIT[curve.unit]}" if LEVEL_UNIT[curve.unit] else ""
    figure.text(0.004, 1 - 13 / HEIGHT, one_line(curve.title + unit, 40), weight="bold", va="center")
    for series in curve.series:
        _line(axes, series, marks[series.arm], curve.unit)
    axes.set_xlabel("step", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", visible=False)
    axes.set_ylim(*_limits(curve))
    return finish(figure, f"curve_{slug(curve.metric)}", curve.group, _alt(curve, marks))


def _line(axes: Axes, series: Series, mark: Mark, unit: Unit) -> None:
    mean, low, high = (_shown(values, unit) for values in (series.mean, series.low, series.high))
    axes.fill_between(series.steps, low, high, color=mark.color, alpha=0.12, linewidth=0)
    every = max(1, len(series.steps) // 6)
    axes.plot(series.steps, mean, color=mark.color, marker=mark.marker, markevery=(every // 2, every), markersize=4.5)


def _shown(values: tuple[float | None, ...], unit: Unit) -> np.ndarray:
    return np.array([np.nan if value is None else scaled(value, unit) for value in values])


def _limits(curve: Curve) -> tuple[float, float]:
    """Limits that hold every mean, and as much of the bands as fits in twice that span."""
    means = np.concatenate([_shown(series.mean, curve.unit) for series in curve.series] or [np.array([np.nan])])
    bands = [_shown(ends, curve.unit) for series in curve.series for ends in (series.low, series.high)]
    seen = means[np.isfinite(means)]
    if not seen.size:
        return 0.0, 1.0
    low, high = seen.min(), seen.max()
    room = 0.5 * (high - low) or 0.05 * max(abs(high), 1.0)
    ends = np.concatenate(bands)
    ends = np.concatenate([ends[np.isfinite(ends)], seen])
    low, high = max(ends.min(), low - room), min(ends.max(), high + room)
    if curve.unit == "share":
        low, high = max(low, 0.0), min(high, 100.0)
    air = 0.05 * (high - low) or room
    return low - air, high + air


def _alt(curve: Curve, marks: dict[str, Mark]) -> str:
    parts = []
    for series in curve.series:
        seen = [value for value in series.mean if value is not None]
        if seen:
            ends = f"from {number(seen[0], curve.unit)} to {number(seen[-1], curve.unit)}"
            parts.append(f"{marks[series.arm].label} {ends}")
    return one_line(f"{curve.title} over training: " + "; ".join(parts), 600)


def draw_pass_at_k(table: Table, evaluation_set: str, marks: dict[str, Mark]) -> Drawing:
    """The chance that one of k completions is right, for every policy on one evaluation set; k in doublings."""
    figure, axes = canvas(PASS_WIDTH, PASS_HEIGHT, MARGINS)
    title = "Right at least once in k completions, %"
    figure.text(0.004, 1 - 13 / PASS_HEIGHT, title, weight="bold", va="center")
    places = [place for place, column in enumerate(table.columns) if column.set == evaluation_set]
    ks = [int(table.columns[place].metric.rsplit("_", 1)[1]) for place in places]
    ends = []
    for row in table.rows:
        cells = [row.cells[place] for place in places]
        _pass_line(axes, ks, cells, marks[row.row])
        ends.append(f"{row.label} from {number(cells[0].mean, 'share')} to {number(cells[-1].mean, 'share')}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_xlabel("k", labelpad=1)
    axes.grid(axis="x", visible=False)
    alt = f"{title}, from k = {ks[0]} to k = {ks[-1]}: {'; '.join(ends)}"
    return finish(figure, "pass_at_k", "results", one_line(alt, 600))


def _pass_line(axes: Axes, ks: list[int], cells: list[Estimate], mark: Mark) -> None:
    columns = [(cell.mean, cell.low, cell.high) for cell in cells]
    mean, low, high = (_shown(values, "share") for values in zip(*columns, strict=True))
    axes.fill_between(ks, low, high, color=mark.color, alpha=0.12, linewidth=0)
    axes.plot(ks, mean, color=mark.color, marker=mark.marker, markersize=6)


def draw_legend(marks: list[Mark]) -> Drawing:
    """Colour and marker of every arm, for readers of the files; the page has a legend of its own."""
    columns = 2
    lines = -(-len(marks) // columns)
    height = 22 * lines + 6
    figure = Figure(figsize=(640 / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 640), ylim=(height, 0))
    axes.set_axis_off()
    for place, mark in enumerate(marks):
        x, y = 10 + 320 * (place % columns), 14 + 22 * (place // columns)
        axes.plot([x, x + 24], [y, y], color=mark.color)
        axes.plot(x + 12, y, color=mark.color, marker=mark.marker, markersize=6)
        axes.text(x + 32, y, one_line(mark.label, 44), va="center")
    return finish(figure, "legend", "legend", "Legend: " + ", ".join(one_line(mark.label, 44) for mark in marks))

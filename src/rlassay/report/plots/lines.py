# pyright: basic
# matplotlib types its methods only in part, so strict mode would report every call that draws.
"""Figures with a line or marks per arm, and their legend.

They are learning and held-out curves, pass@k, profiles, and score against KL.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlassay.report.figures_style import ALT_LENGTH, SOFT, Drawing, Mark, canvas, file_name, finish, headed
from rlassay.report.findings.records import Frontier, HeldOut, HeldOutCurve, HeldOutSeries, Profiles
from rlassay.report.numbers import Curve, Estimate, Series, Table, Unit
from rlassay.report.typeset import LEVEL_UNIT, number, one_line, scaled

CURVE_SIZE, PASS_AT_K_SIZE = (270, 190), (360, 310)
"""Width and height, pixels."""
LINE_MARGINS = (38, 6, 34, 34)
"""Margins of learning curves and of pass@k."""
LEGEND_WIDTH, LEGEND_COLUMNS, LEGEND_ROW = 640, 2, 22
SHORT_HOURS = 2.0
"""Training of fewer hours is shown in minutes."""
HeldOutAxis = Literal["step", "tokens", "hours"]
"""The x-axis of a held-out curve."""

# One line per arm over the steps.


def draw_curve(curve: Curve, marks: dict[str, Mark]) -> Drawing:
    """One metric over the optimiser steps; the y axis fits the means rather than wide bands."""
    unit = f", {LEVEL_UNIT[curve.unit]}" if LEVEL_UNIT[curve.unit] else ""
    figure, axes = _line_canvas(CURVE_SIZE, one_line(curve.title + unit, 40))
    for series in curve.series:
        _draw_series(axes, series, marks[series.arm], curve)
    axes.set_xlabel("step", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylim(*_curve_limits(curve))
    return finish(figure, f"curve_{file_name(curve.metric)}", curve.group, _describe_curve(curve, marks))


def _draw_series(axes: Axes, series: Series, mark: Mark, curve: Curve) -> None:
    mean, low, high = (_plotted(values, curve.unit) for values in (series.mean, series.low, series.high))
    _draw_band(axes, series.steps, (low, high), mark, len(curve.series))
    every = max(1, len(series.steps) // 6)
    axes.plot(series.steps, mean, color=mark.color, marker=mark.marker, markevery=(every // 2, every), markersize=4.5)


def _draw_band(
    axes: Axes,
    places: Sequence[float] | Sequence[int],
    ends: tuple[np.ndarray, np.ndarray],
    mark: Mark,
    num_lines: int,
) -> None:
    """Draw an interval at each place.

    It is paler in figures with more lines, so that bands hide none.
    """
    axes.fill_between(places, *ends, color=mark.color, alpha=min(0.12, 0.6 / num_lines), linewidth=0)


def _plotted(values: Sequence[float | None], unit: Unit) -> np.ndarray:
    """The values on the scale of the figure; NaN, which leaves a gap, for None."""
    return np.array([np.nan if value is None else scaled(value, unit) for value in values])


def _curve_limits(curve: Curve) -> tuple[float, float]:
    """Limits of the y axis, so that every mean fits.

    Of the bands as much is shown as fits in twice that span. Means that differ by less than a thousandth count as
    constant: ticks would show their rounding alone.
    """
    means = np.concatenate([_plotted(series.mean, curve.unit) for series in curve.series] or [np.array([np.nan])])
    bands = [_plotted(ends, curve.unit) for series in curve.series for ends in (series.low, series.high)]
    finite = means[np.isfinite(means)]
    if not finite.size:
        return 0.0, 1.0
    low, high = finite.min(), finite.max()
    constant = high - low < 1e-3 * max(abs(high), abs(low))
    room = 0.05 * max(abs(high), 1.0) if constant or high == low else 0.5 * (high - low)
    ends = np.concatenate(bands)
    ends = np.concatenate([ends[np.isfinite(ends)], finite])
    low, high = max(ends.min(), low - room), min(ends.max(), high + room)
    if curve.unit == "share":
        low, high = max(low, 0.0), min(high, 100.0)
    air = room if constant else 0.05 * (high - low) or room
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
    """Draw each policy's chance that at least one of k completions is right.

    It is on one evaluation set, with a log2 axis.
    """
    title = "At least one of k completions is right, %"
    figure, axes = _line_canvas(PASS_AT_K_SIZE, title)
    places = [place for place, column in enumerate(table.columns) if column.set == evaluation_set]
    ks = [int(table.columns[place].metric.rsplit("_", 1)[1]) for place in places]
    ends: list[str] = []
    for row in table.rows:
        cells = [row.cells[place] for place in places]
        _draw_points(axes, ([float(k) for k in ks], cells), marks[row.row], "share", len(table.rows))
        ends.append(f"{row.label} from {number(cells[0].mean, 'share')} to {number(cells[-1].mean, 'share')}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_xlabel("k", labelpad=1)
    alt = f"{title}, from k = {ks[0]} to k = {ks[-1]}: {'; '.join(ends)}"
    return finish(figure, "pass_at_k", "results", one_line(alt, ALT_LENGTH))


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
    headed(figure, 0.004, size[1], title)
    axes.grid(axis="x", visible=False)
    return figure, axes


# Scores beyond their mean: over prompts, and against KL.


def draw_profiles(found: Profiles, marks: dict[str, Mark]) -> Drawing:
    """Draw the share of prompts that reach each score, a line per arm.

    The band is over seeds.
    """
    unit, column = found.column.unit, found.column
    figure, axes = _line_canvas(PASS_AT_K_SIZE, "Share of prompts that score at least so much, %")
    places = [scaled(value, unit) for value in found.thresholds]
    every = max(1, len(places) // 8)
    ends: list[str] = []
    for series in found.series:
        mark = marks[series.arm]
        mean, low, high = (_plotted(values, "share") for values in (series.mean, series.low, series.high))
        _draw_band(axes, places, (low, high), mark, len(found.series))
        axes.plot(places, mean, color=mark.color, marker=mark.marker, markersize=5, markevery=every)
        middle = len(places) // 2
        ends.append(f"{mark.label} {number(series.mean[middle], 'share')}")
    axes.set_xlabel(f"{column.title} of a prompt{_in_unit(unit)}", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(0, 103)
    at = number(found.thresholds[len(places) // 2], unit)
    alt = f"Share of prompts by score, % that score at least {at} in {column.title}: {'; '.join(ends)}"
    return finish(figure, "profiles", "beyond_means", one_line(alt, ALT_LENGTH))


def draw_frontier(found: Frontier, marks: dict[str, Mark]) -> Drawing:
    """Draw the score against the KL from the policy before RL.

    An arm has a large mark and, if it has several runs, a small one per run.
    """
    unit, column = found.column.unit, found.column
    figure, axes = _line_canvas(PASS_AT_K_SIZE, one_line(f"{column.title}{_in_unit(unit)}", 48))
    said: list[str] = []
    for arm in dict.fromkeys(run.arm for run in found.runs):
        runs, mark = [run for run in found.runs if run.arm == arm], marks[arm]
        kls, scores = [run.kl for run in runs], [run.score for run in runs]
        kl, score = sum(kls) / len(kls), sum(scores) / len(scores)
        if len(runs) > 1:
            shown = [scaled(value, unit) for value in scores]
            axes.plot(kls, shown, color=mark.color, marker=mark.marker, markersize=4, alpha=0.6, linestyle="")
        axes.plot(kl, scaled(score, unit), color=mark.color, marker=mark.marker, markersize=9, linestyle="")
        said.append(f"{mark.label} {number(score, unit)} at {kl:.2g}")
    axes.grid(axis="x", visible=True)
    axes.set_xlabel("KL from the policy before RL, nats per token", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    alt = f"{column.title} against the KL from the policy before RL in nats per token: {'; '.join(said)}"
    return finish(figure, "frontier", "beyond_means", one_line(alt, ALT_LENGTH))


def _in_unit(unit: Unit) -> str:
    return f", {LEVEL_UNIT[unit]}" if LEVEL_UNIT[unit] else ""


# Held-out curves.


def draw_held_out(found: HeldOut, marks: dict[str, Mark]) -> list[Drawing]:
    """The primary metric over steps, generated tokens and time; its other modes over steps."""
    return [
        _draw_held_out(name, curve, over, found, marks)
        for curve in found.curves
        for name, over in held_out_names(found, curve).items()
    ]


def held_out_names(found: HeldOut, curve: HeldOutCurve) -> dict[str, HeldOutAxis]:
    """Name of each figure of a curve -> its x-axis."""
    over: tuple[HeldOutAxis, ...] = ("step", "tokens", "hours") if curve is found.curves[0] else ("step",)
    return {f"held_out_{file_name(curve.column.metric)}_{curve.column.mode}_{each}": each for each in over}


def _draw_held_out(
    name: str, curve: HeldOutCurve, over: HeldOutAxis, found: HeldOut, marks: dict[str, Mark]
) -> Drawing:
    unit = f", {LEVEL_UNIT[curve.column.unit]}" if LEVEL_UNIT[curve.column.unit] else ""
    figure, axes = _line_canvas(CURVE_SIZE, one_line(curve.column.title + unit, 40))
    label, factor = _axis(curve, over)
    ends: list[str] = []
    for series in curve.series:
        cells = [point.score for point in series.points]
        line = _places(series, over, factor), cells
        _draw_points(axes, line, marks[series.arm], curve.column.unit, len(curve.series))
        ends.append(f"{marks[series.arm].label} from {_level(cells[0], curve)} to {_level(cells[-1], curve)}")
    if over == "tokens" and found.equal is not None:
        axes.axvline(found.equal.tokens * factor, color=SOFT, linewidth=0.8, linestyle=":")
    axes.set_xlabel(label, labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    alt = one_line(f"{curve.column.title} on held-out prompts over {label}: {'; '.join(ends)}", ALT_LENGTH)
    return finish(figure, name, "held_out", alt)


def _level(cell: Estimate, curve: HeldOutCurve) -> str:
    return number(cell.mean, curve.column.unit)


def _axis(curve: HeldOutCurve, over: HeldOutAxis) -> tuple[str, float]:
    """Label of the axis, and the factor from the stored unit to its own."""
    if over == "step":
        return "step", 1.0
    if over == "tokens":
        return "thousand tokens generated in training", 1e-3
    longest = max(point.hours or 0.0 for series in curve.series for point in series.points)
    return ("hours of training", 1.0) if longest >= SHORT_HOURS else ("minutes of training", 60.0)


def _places(series: HeldOutSeries, over: HeldOutAxis, factor: float) -> list[float]:
    """Places of a series' points on the axis; NaN, which leaves a gap, where the tokens or the time are unknown."""
    values = [getattr(point, over) for point in series.points]
    return [np.nan if value is None else value * factor for value in values]


def _draw_points(
    axes: Axes, line: tuple[Sequence[float], list[Estimate]], mark: Mark, unit: Unit, num_lines: int
) -> None:
    """A line through estimates at their places, with the band of their intervals."""
    places, cells = line
    columns = zip(*((cell.mean, cell.low, cell.high) for cell in cells), strict=True)
    mean, low, high = (_plotted(values, unit) for values in columns)
    _draw_band(axes, places, (low, high), mark, num_lines)
    axes.plot(places, mean, color=mark.color, marker=mark.marker, markersize=5)

"""Every figure of the report, drawn from its content."""

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
from rlassay.report.numbers import Column, Curve, Difference, Estimate, RewardPart, Series, Table, TableRow, Unit
from rlassay.report.typeset import EFFECT_UNIT, LEVEL_UNIT, number, one_line, scaled, with_interval

# MERGED FROM report.figures_rows: Figures with one row per policy: levels, differences (forest plots), and each
# reward before and after training.

WIDTH, ROW, TOP, BOTTOM = 360, 40, 28, 40
LEFT, RIGHT = 1, 8


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row: an interval with its mean, a name on the left and the numbers on the right."""

    mark: Mark
    """How it is drawn."""
    shown: Estimate | Difference | None
    """The number; None = no results yet."""
    text: str
    """The number in words."""
    filled: bool = True
    """Whether the marker is filled."""
    before: float | None = None
    """An earlier value, drawn as a ring that a thin line joins to the mean."""


def draw_levels(content: Content, marks: dict[str, Mark]) -> Drawing:
    """The primary metric of every policy, with its interval."""
    table = content.tables["main"]
    place, column = next((place, column) for place, column in enumerate(table.columns) if column.primary)
    lines = [_level(row, place, column.unit, marks) for row in table.rows]
    figure, axes = _rows(column.title, lines, column.unit)
    _direction(axes, LEVEL_UNIT[column.unit], column)
    alt = f"{column.title}: " + "; ".join(f"{line.mark.label} {line.text}" for line in lines)
    return finish(figure, "levels", "results", one_line(alt, 600))


def _level(row: TableRow, place: int, unit: Unit, marks: dict[str, Mark]) -> Line:
    cell = row.cells[place]
    return Line(mark=marks[row.row], shown=cell, text=with_interval(cell.mean, cell, unit))


def draw_forest(
    name: str, title: str, comparisons: Sequence[Comparison], column: Column, marks: dict[str, Mark]
) -> Drawing:
    """Each arm's difference from its reference, with its interval; a filled marker is a verdict, a ring is none."""
    lines = [_effect(comparison, column.unit, marks) for comparison in comparisons]
    figure, axes = _rows(title, lines, column.unit, zero=True)
    _direction(axes, f"difference, {EFFECT_UNIT[column.unit]}".rstrip(", "), column)
    alt = f"{title}: " + "; ".join(f"{line.mark.label} {line.text}" for line in lines)
    return finish(figure, name, "verdicts", one_line(alt, 600))


def _effect(comparison: Comparison, unit: Unit, marks: dict[str, Mark]) -> Line:
    shown = comparison.difference
    text = "no results yet" if shown is None else with_interval(shown.effect, shown, unit, signed=True)
    return Line(mark=marks[comparison.arm], shown=shown, text=text, filled=comparison.outcome in ("better", "worse"))


def draw_reward(reward: str, parts: Sequence[RewardPart], marks: dict[str, Mark]) -> Drawing:
    """One reward's raw value in every arm: a ring at the start of RL, a filled marker at its end."""
    lines = [_before_after(part, marks) for part in parts]
    figure, axes = _rows(reward, lines, "value")
    axes.set_xlabel("raw value, first tenth of the steps (ring) and last tenth")
    alt = f"{reward}, raw value before and after RL: " + "; ".join(f"{line.mark.label} {line.text}" for line in lines)
    return finish(figure, f"reward_{slug(reward)}", "rewards", one_line(alt, 600))


def _before_after(part: RewardPart, marks: dict[str, Mark]) -> Line:
    role = "observer" if part.role == "observer" else f"weight {part.weight:g}"
    text = f"{number(part.first.mean, 'value')} → {number(part.last.mean, 'value')}  {role}"
    return Line(mark=marks[part.arm], shown=part.last, text=text, filled=part.role == "trained", before=part.first.mean)


def slug(name: str) -> str:
    """A name as part of a file name."""
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name).strip("_")


def _rows(title: str, lines: Sequence[Line], unit: Unit, zero: bool = False) -> tuple[Figure, Axes]:
    figure, axes = canvas(WIDTH, TOP + ROW * len(lines) + BOTTOM, (LEFT, RIGHT, TOP, BOTTOM))
    figure.text(LEFT / WIDTH, 1 - 13 / (figure.get_figheight() * 72), one_line(title, 52), weight="bold", va="center")
    axes.set_ylim(len(lines) - 0.5 + 0.1, -0.5)
    axes.set_yticks([])
    axes.set_xlim(*_limits(lines, unit, zero))
    axes.grid(visible=False)
    for place, line in enumerate(lines):
        if zero:  # beside each interval only, so that it crosses no text
            axes.plot([0, 0], [place + 0.08, place + 0.32], color=SOFT, linewidth=1.5)
        _row(axes, place, line, unit)
    return figure, axes


def _row(axes: Axes, place: int, line: Line, unit: Unit) -> None:
    y, color = place + 0.2, line.mark.color
    words = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom"}
    axes.annotate(one_line(line.mark.label, 30), (0, y), (0, 7), color=INK, **words)
    axes.annotate(one_line(line.text, 44), (1, y), (0, 7), color=SOFT, ha="right", **words)
    axes.axhline(y, color=HAIR, linewidth=0.8)
    middle, low, high = _numbers(line.shown)
    if middle is None:
        return
    if low is not None and high is not None:
        axes.plot([scaled(low, unit), scaled(high, unit)], [y, y], color=color, linewidth=2.6)
    if line.before is not None:
        axes.plot([line.before, middle], [y, y], color=color, linewidth=0.9)
        axes.plot(line.before, y, marker="o", markersize=6, color=color, markerfacecolor=LIGHT_PAPER)
    face = color if line.filled else LIGHT_PAPER
    axes.plot(scaled(middle, unit), y, marker=line.mark.marker, markersize=8, color=color, markerfacecolor=face)


def _numbers(shown: Estimate | Difference | None) -> tuple[float | None, float | None, float | None]:
    if shown is None:
        return None, None, None
    return (shown.mean if isinstance(shown, Estimate) else shown.effect), shown.low, shown.high


def _limits(lines: Sequence[Line], unit: Unit, zero: bool) -> tuple[float, float]:
    """The shown range with some air; it contains every interval, and zero where zero means something."""
    known = [value for line in lines for value in (*_numbers(line.shown), line.before) if value is not None]
    values = [scaled(value, unit) for value in known] + ([0.0] if zero or not known else [])
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.5
    return low - air, high + air


def _direction(axes: Axes, what: str, column: Column) -> None:
    side = {"higher": " · further right is better", "lower": " · further left is better", "neither": ""}[column.better]
    axes.set_xlabel((what + side).removeprefix(" · "))


# MERGED FROM report.figures_curves: Learning curves: one small panel per metric, every arm in its own colour
# and marker, a band over the seeds.

CURVES_WIDTH, HEIGHT, MARGINS = 270, 190, (38, 6, 34, 34)
PASS_WIDTH, PASS_HEIGHT = 360, 310


def draw_curve(curve: Curve, marks: dict[str, Mark]) -> Drawing:
    """One metric over the optimiser steps; the axis spans the means, so that a wide band does not flatten them."""
    figure, axes = canvas(CURVES_WIDTH, HEIGHT, MARGINS)
    unit = f", {LEVEL_UNIT[curve.unit]}" if LEVEL_UNIT[curve.unit] else ""
    figure.text(0.004, 1 - 13 / HEIGHT, one_line(curve.title + unit, 40), weight="bold", va="center")
    for series in curve.series:
        _line(axes, series, marks[series.arm], curve.unit)
    axes.set_xlabel("step", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", visible=False)
    axes.set_ylim(*_curve_limits(curve))
    return finish(figure, f"curve_{slug(curve.metric)}", curve.group, _alt(curve, marks))


def _line(axes: Axes, series: Series, mark: Mark, unit: Unit) -> None:
    mean, low, high = (_shown(values, unit) for values in (series.mean, series.low, series.high))
    axes.fill_between(series.steps, low, high, color=mark.color, alpha=0.12, linewidth=0)
    every = max(1, len(series.steps) // 6)
    axes.plot(series.steps, mean, color=mark.color, marker=mark.marker, markevery=(every // 2, every), markersize=4.5)


def _shown(values: tuple[float | None, ...], unit: Unit) -> np.ndarray:
    return np.array([np.nan if value is None else scaled(value, unit) for value in values])


def _curve_limits(curve: Curve) -> tuple[float, float]:
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


# MERGED FROM report.figures: Every figure of the report, drawn from its content.


def assign_marks(content: Content) -> dict[str, Mark]:
    """Row -> how it is drawn: an arm's own colour or the palette's, markers in the arms' order; grey without RL."""
    shapes = tuple(MARKERS)
    without_rl = [row for row in content.tables["main"].rows if row.kind != "arm"]
    marks = {
        row.row: Mark(label=row.label, color=NEUTRAL, marker=shapes[-1 - place % len(shapes)])
        for place, row in enumerate(without_rl)
    }
    for place, arm in enumerate(content.arms):
        color = readable((arm.color or PALETTE[place % len(PALETTE)]).lower(), LIGHT_PAPER)
        # Shapes move on by one with each round of colours, so that no two arms share both.
        shape = shapes[(place + place // len(PALETTE)) % len(shapes)]
        marks[arm.name] = Mark(label=arm.label, color=color, marker=shape)
    return marks


def draw_figures(content: Content, marks: dict[str, Mark]) -> list[Drawing]:
    """All figures in the order in which the page shows them."""
    primary = next(column for column in content.tables["main"].columns if column.primary)
    baseline = marks[content.study.baseline].label
    with house_style():
        drawings = [draw_levels(content, marks)]
        if "pass_at_k" in content.tables:
            drawings.append(draw_pass_at_k(content.tables["pass_at_k"], primary.set, marks))
        for name, title, shown in (
            ("forest_baseline", f"Against {baseline}", content.verdicts),
            ("forest_start", "Against the policy that RL started from", content.gains),
        ):
            drawings += [draw_forest(name, title, shown, primary, marks)] if shown else []
        drawings.append(draw_legend([marks[arm.name] for arm in content.arms]))
        drawings += [draw_curve(curve, marks) for curve in content.curves]
        for reward in dict.fromkeys(part.reward for part in content.rewards):
            drawings.append(draw_reward(reward, [part for part in content.rewards if part.reward == reward], marks))
    return drawings


def write_figures(drawings: Iterable[Drawing], marks: dict[str, Mark], folder: Path) -> None:
    """Write `<name>.svg` for each drawing, and remove figures that an earlier report left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.svg"):
        stale.unlink()
    for drawing in drawings:
        text = standalone(drawing, [mark.color for mark in marks.values()])
        (folder / f"{drawing.name}.svg").write_text(text, encoding="utf-8")

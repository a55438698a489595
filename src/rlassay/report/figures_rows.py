"""Figures with one row per policy: levels, differences (forest plots), and each reward before and after training."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlassay.report.content import Comparison, Content
from rlassay.report.evidence import RewardPart
from rlassay.report.figures_style import HAIR, INK, LIGHT_PAPER, SOFT, Drawing, Mark, canvas, finish
from rlassay.report.numbers import Column, Difference, Estimate, TableRow, Unit
from rlassay.report.typeset import EFFECT_UNIT, LEVEL_UNIT, number, one_line, scaled, with_interval

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

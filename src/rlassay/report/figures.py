# pyright: basic
# matplotlib types its methods only in part, so strict mode would report every call that draws.
"""Draw every figure of the report from its content.

Figures with an interval per row (levels, differences, rewards) are drawn here, those with a line or marks per arm in
`plots.lines`. Colours, fonts and the SVG itself are in `figures_style`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlassay.names import in_words
from rlassay.report.content import Comparison, Content
from rlassay.report.figures_style import (
    ALT_LENGTH,
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
    file_name,
    finish,
    headed,
    house_style,
    readable,
    standalone,
)
from rlassay.report.findings.records import Attribution, AttributionKind, AttributionMethod, IngredientEffect
from rlassay.report.numbers import Column, Estimate, PairedDifference, RewardPart, TableRow, Unit
from rlassay.report.plots.lines import (
    draw_curve,
    draw_frontier,
    draw_held_out,
    draw_legend,
    draw_pass_at_k,
    draw_profiles,
)
from rlassay.report.typeset import EFFECT_UNIT, LEVEL_UNIT, number, one_line, quoted, scaled, with_interval

ROWS_WIDTH, ROW_HEIGHT, NAME_HEIGHT = 360, 42, 14
"""Pixels of a figure with one interval per row; a row whose name has a line of its own is `NAME_HEIGHT` higher."""
ROW_CHARACTERS = 56
"""Characters of text that fit beside each other in a row."""
HALF_NUMBER = 17
"""Pixels of half the number at a tick."""
ROWS_MARGINS = (1, 8, 28, 40)
"""Left, right, top, bottom, pixels; as in `canvas`."""


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
            drawings += draw_attribution(content.attribution, primary)
        drawings += [draw_profiles(content.profiles, marks)] if content.profiles is not None else []
        drawings += [draw_frontier(content.frontier, marks)] if content.frontier is not None else []
        drawings.append(draw_legend([marks[arm.name] for arm in content.arms]))
        drawings += [draw_curve(curve, marks) for curve in content.curves]
        if content.held_out is not None:
            drawings += draw_held_out(content.held_out, marks)
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


# One interval per row.


EFFECT_ROWS: dict[AttributionKind, tuple[str, str]] = {
    "shapley": ("Shapley: ", "D"),
    "main_effect": ("main: ", "o"),
    "leave_one_out": ("left out: ", "v"),
    "add_one_in": ("added: ", "^"),
    "interaction": ("", "X"),
}
"""Kind of attribution -> how its rows begin, and their marker."""
ATTRIBUTION_FIGURES: dict[str, tuple[str, tuple[AttributionKind, ...]]] = {
    "attribution": ("What each ingredient adds on average", ("shapley", "main_effect")),
    "attribution_single": ("What it adds to all others, or alone", ("leave_one_out", "add_one_in")),
    "attribution_interactions": ("What two add beyond the sum of each", ("interaction",)),
}
"""Figure -> its title, and the kinds of attribution that it shows."""


@dataclass(frozen=True, kw_only=True)
class IntervalRow:
    """One row of a figure: name left, numbers right, interval and mean below."""

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
    return finish(figure, "levels", "levels", _describe_rows(column.title, rows))


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


def draw_attribution(attribution: Attribution, column: Column) -> Iterator[Drawing]:
    """The effect of each ingredient by every method; a filled marker means that the interval excludes 0."""
    for name, (title, kinds) in ATTRIBUTION_FIGURES.items():
        methods = [method for method in attribution.methods if method.kind in kinds]
        rows = [_effect_row(method, one, column.unit) for method in methods for one in method.effects]
        if rows:
            figure, axes = _draw_rows(title, rows, column.unit, zero=True)
            _label_axis(axes, f"difference, {EFFECT_UNIT[column.unit]}".rstrip(", "), column)
            yield finish(figure, name, "attribution", _describe_rows(title, rows))


def _effect_row(method: AttributionMethod, one: IngredientEffect, unit: Unit) -> IntervalRow:
    found = one.difference
    short, marker = EFFECT_ROWS[method.kind]
    mark = Mark(label=f"{short}{one.label}", color=INK, marker=marker)
    clear = found.num_seeds > 1 and found.low is not None and found.high is not None and found.low * found.high > 0
    text = with_interval(found.effect, found, unit, signed=True)
    return IntervalRow(mark=mark, estimate=found, text=text, filled=clear, seeds=_several(one.by_seed))


def _several(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """The values of two or more seeds; empty for one, whose value is the mean itself."""
    return values if len(values) > 1 else ()


def draw_reward(reward: str, parts: Sequence[RewardPart], marks: dict[str, Mark]) -> Drawing:
    """Draw a reward's raw value in every arm, early and late in RL.

    A ring is the first tenth of the steps, the mark the last tenth.
    """
    rows = [_before_after_row(part, marks) for part in parts]
    figure, axes = _draw_rows(in_words(reward), rows, "value")
    axes.set_xlabel("raw value: first tenth of the steps (ring), last tenth")
    alt = _describe_rows(f"{in_words(reward)}, raw value before and after RL", rows)
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
    # Names of arms often differ at their ends, so that a long name gets a line of its own instead of being cut.
    stacked = any(len(row.mark.label) + len(row.text) > ROW_CHARACTERS - 3 for row in rows)
    height = top + (ROW_HEIGHT + NAME_HEIGHT * stacked) * len(rows) + bottom
    figure, axes = canvas(ROWS_WIDTH, height, ROWS_MARGINS)
    headed(figure, left / ROWS_WIDTH, height, one_line(title, 52))
    axes.set_ylim(len(rows) - 0.5 + 0.2, -0.5)
    axes.set_yticks([])
    axes.set_xlim(*_row_limits(rows, unit, zero))
    axes.grid(visible=False)
    for place, row in enumerate(rows):
        if zero:  # a short stroke beside each interval, so that it crosses no text
            axes.plot([0, 0], [place + 0.08, place + 0.32], color=SOFT, linewidth=1.5)
        _draw_row(axes, place, row, unit, stacked)
    _hide_cut_numbers(axes)
    return figure, axes


def _hide_cut_numbers(axes: Axes) -> None:
    """Leave out tick numbers so close to an edge that they would be cut."""
    low, high = axes.get_xlim()
    air = HALF_NUMBER / ROWS_WIDTH * (high - low)
    for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        label.set_visible(low + air <= place <= high - air)


def _draw_row(axes: Axes, place: int, row: IntervalRow, unit: Unit, stacked: bool) -> None:
    y, color = place + 0.2, row.mark.color
    _row_text(axes, (0.0, y), one_line(row.mark.label, ROW_CHARACTERS), INK, "left", NAME_HEIGHT * stacked)
    _row_text(axes, (1.0, y), one_line(row.text, ROW_CHARACTERS), SOFT, "right")
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


def _row_text(axes: Axes, point: tuple[float, float], text: str, color: str, align: str, higher: int = 0) -> None:
    """Text `7 + higher` points above a row's line; `point` is in fractions of the width and in rows."""
    axes.annotate(
        text,
        point,
        (0, 7 + higher),
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
    """A range with a margin that contains every interval and, if `zero`, the value 0."""
    known = [value for row in rows for value in (*_numbers(row.estimate), row.before, *row.seeds) if value is not None]
    values = [scaled(value, unit) for value in known] + ([0.0] if zero or not known else [])
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.5
    return low - air, high + air


def _label_axis(axes: Axes, unit: str, column: Column) -> None:
    side = {"higher": " · further right is better", "lower": " · further left is better", "neither": ""}[column.better]
    axes.set_xlabel((unit + side).removeprefix(" · "))

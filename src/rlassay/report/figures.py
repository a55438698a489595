"""Every figure of the report, drawn from its content."""

from collections.abc import Iterable
from pathlib import Path

from rlassay.report.content import Content
from rlassay.report.figures_curves import draw_curve, draw_legend, draw_pass_at_k
from rlassay.report.figures_rows import draw_forest, draw_levels, draw_reward
from rlassay.report.figures_style import (
    LIGHT_PAPER,
    MARKERS,
    NEUTRAL,
    PALETTE,
    Drawing,
    Mark,
    house_style,
    readable,
    standalone,
)


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

# pyright: basic
# matplotlib types its methods only in part, so strict mode would report every call that draws.
"""Figures of scores beyond their mean: performance profiles over prompts, and KL against score."""

from matplotlib.ticker import MaxNLocator

from rlassay.report.figures_style import ALT_LENGTH, Drawing, Mark, finish
from rlassay.report.findings.records import Frontier, Profiles
from rlassay.report.numbers import Unit
from rlassay.report.plots.lines import PASS_AT_K_SIZE, line_canvas, plotted
from rlassay.report.typeset import LEVEL_UNIT, number, one_line, scaled


def draw_profiles(found: Profiles, marks: dict[str, Mark]) -> Drawing:
    """The share of prompts that reach each score, a line per arm with its band over seeds."""
    unit, column = found.column.unit, found.column
    figure, axes = line_canvas(PASS_AT_K_SIZE, "Share of prompts that score at least so much, %")
    places = [scaled(value, unit) for value in found.thresholds]
    every = max(1, len(places) // 8)
    ends: list[str] = []
    for series in found.series:
        mark = marks[series.arm]
        mean, low, high = (plotted(values, "share") for values in (series.mean, series.low, series.high))
        axes.fill_between(places, low, high, color=mark.color, alpha=0.12, linewidth=0)
        axes.plot(places, mean, color=mark.color, marker=mark.marker, markersize=5, markevery=every)
        middle = len(places) // 2
        ends.append(f"{mark.label} {number(series.mean[middle], 'share')}")
    axes.set_xlabel(f"{column.title} of a prompt{_unit(unit)}", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(0, 103)
    at = number(found.thresholds[len(places) // 2], unit)
    alt = f"Share of prompts by score, % that score at least {at} in {column.title}: {'; '.join(ends)}"
    return finish(figure, "profiles", "beyond_means", one_line(alt, ALT_LENGTH))


def draw_frontier(found: Frontier, marks: dict[str, Mark]) -> Drawing:
    """KL from the policy before RL against the score, a small mark per run and a large one per arm."""
    unit, column = found.column.unit, found.column
    figure, axes = line_canvas(PASS_AT_K_SIZE, one_line(f"{column.title}{_unit(unit)}", 48))
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


def _unit(unit: Unit) -> str:
    return f", {LEVEL_UNIT[unit]}" if LEVEL_UNIT[unit] else ""

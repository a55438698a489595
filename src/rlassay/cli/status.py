"""Show the progress of every run."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlassay.cli.common import add_study_arguments, load
from rlassay.cli.failures import Failure, failures
from rlassay.config import Study
from rlassay.config.policies import Policy, asked_policies
from rlassay.files import read_json
from rlassay.layout import PAGE, REPORT_NUMBERS, Layout
from rlassay.progress import CurvePoint, Progress, read_curve_points, read_progress
from rlassay.tracking.links import read_links

STYLES = {
    "finished": "green",
    "collapsed": "red",
    "running": "cyan",
    "waiting": "dim",
    "killed": "yellow",
    "failed": "red",
    "": "dim",
}
BAR_WIDTH = 14  # the table then fits 80 columns
LOG_COLUMNS = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, and whether to keep watching."""
    add_study_arguments(parser)
    parser.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two looks [%(default)s]")


def run(args: argparse.Namespace) -> int:
    """Print the table once, or keep it up to date; 0. Everything is read from disk."""
    study, layout, _ = load(args)
    console = Console()
    if not console.is_terminal:
        console.width = LOG_COLUMNS
    if not args.watch:
        console.print(table(study, layout))
        for line in conclusion(study, layout):
            console.print(Text(line), soft_wrap=True)
        return 0
    try:
        with Live(table(study, layout), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(args.interval)
                live.update(table(study, layout), refresh=True)
    except KeyboardInterrupt:
        return 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One policy."""

    policy: str
    """Its folder."""
    name: str
    """Its arm and seed, or its kind."""
    stage: str
    """The stage that trains it: `sft` or `rl`; `model` for a model that is not trained."""
    state: str
    """`waiting`, `running`, `finished`, `killed` (or vanished without a message), `failed` (training or evaluation);
    empty: never trained."""
    step: int
    """Optimiser steps done."""
    max_steps: int
    """Optimiser steps to do; 0 for a model that is not trained."""
    progress: Progress | None
    """None before its first start."""
    held_out: CurvePoint | None
    """The newest point of its held-out curve."""
    scored: str
    """The evaluation sets that have scores."""
    errors: tuple[str, ...]
    """Errors of its failed jobs."""


def table(study: Study, layout: Layout) -> Table:
    """One line per policy: warm starts, then the runs of each arm; problems follow below."""
    rows = status_rows(study, layout)
    counts = Counter(row.state for row in rows if row.state)
    title = f"{study.id}: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    left = training_left(rows, counts["running"]) if counts["running"] else None
    title += f"; about {duration(left)} of training left" if left else ""
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("run", "state", "progress"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("steps", "reward", "left", "scored"):
        shown.add_column(heading, justify="right", no_wrap=True)
    if study.curve_set is not None:
        shown.add_column("held-out", justify="right", no_wrap=True)
    for row in rows:
        _add(shown, row, study.curve_set is not None)
    errors = [f"{failure.job}: {failure.error}" for failure in failures(study, layout) if failure.policy is None]
    errors += [f"{row.name}: {error}" for row in rows for error in row.errors]
    shown.caption = Text("\n".join(errors), style="red") if errors else None
    shown.caption_justify = "left"
    return shown


def conclusion(study: Study, layout: Layout) -> list[str]:
    """Lines on a finished study: verdicts, page, runs; empty if it is unfinished or has failed."""
    content = read_json(layout.report / REPORT_NUMBERS)
    rows = status_rows(study, layout)
    if content is None or any(row.state not in ("", "finished", "collapsed") or not row.scored for row in rows):
        return []
    link = read_links(layout.tracking).arms
    return [
        *([content["headline"]] if content.get("headline") else []),
        *(f"  {verdict['sentence']}" for verdict in content["verdicts"]),
        *(f"  Warning: {sentence}" for sentence in content.get("modes_apart", ())),
        f"Page: {layout.report / PAGE}",
        *([f"MLflow, the arms side by side: {link}"] if link else []),
    ]


def conclude(study: Study, layout: Layout, *, on_cluster: bool) -> None:
    """Print where to look; on a cluster also `conclusion`, which a local job has printed itself."""
    if on_cluster:
        print("\n".join(conclusion(study, layout)))
    print(f"Done. For more: rlassay status (runs), mlflow ui (curves): {read_links(layout.tracking).arms}")


def status_rows(study: Study, layout: Layout) -> list[Row]:
    """The policies of a study, warm starts before runs."""
    found = failures(study, layout)
    return [
        _row(study, layout, policy, [failure for failure in found if failure.policy == policy.folder])
        for policy in asked_policies(study, layout).values()
    ]


def training_left(rows: Sequence[Row], side_by_side: int) -> float | None:
    """Seconds until all policies are trained, evaluation left out; None while the rate of a stage is not known.

    `max(longest job, sum of jobs / side_by_side)`. A job that is not running takes as long per step as the median of
    the jobs of its stage that have begun.

    Args:
        rows: the policies.
        side_by_side: jobs that run at the same time.
    """
    rates: dict[str, list[float]] = {}
    for row in rows:
        if row.progress is not None and row.progress.seconds_per_step is not None:
            rates.setdefault(row.stage, []).append(row.progress.seconds_per_step)
    jobs: list[float] = []
    for row in rows:
        if row.state == "finished" or not row.max_steps:
            continue
        if row.stage not in rates:
            return None
        own = None if row.progress is None else row.progress.seconds_per_step
        jobs.append((row.max_steps - row.step) * (median(rates[row.stage]) if own is None else own))
    return max([*jobs, sum(jobs) / side_by_side]) if jobs else 0.0


def _row(study: Study, layout: Layout, policy: Policy, failed: list[Failure]) -> Row:
    folder = policy.folder
    unscored = [failure for failure in failed if failure.split and not layout.scores(folder, failure.split).exists()]
    progress = None if not policy.is_trained else read_progress(layout, folder)
    state = "" if not policy.is_trained else "waiting" if progress is None else progress.condition
    # Without its manifest, the result was removed for a rerun.
    if state in ("finished", "collapsed") and not layout.train_manifest(folder, policy.stage).exists():
        state, progress = "waiting", None
    errors = [str(progress.error)] if state in ("failed", "collapsed") and progress is not None else []
    errors += [f"{failure.stage} {failure.split}: {failure.error}" for failure in unscored]
    if unscored and state in ("", "waiting", "finished"):
        state = "failed"
    kind = policy.arm or policy.reference or {"model": "untrained model", "sft": "warm start"}[policy.stage]
    return Row(
        policy=folder,
        stage=policy.stage,
        name=f"{kind}" + ("" if policy.seed is None else f" seed {policy.seed}"),
        state=state,
        step=0 if progress is None else progress.step,
        max_steps=_planned_steps(policy) if progress is None else progress.max_steps,
        progress=progress,
        errors=tuple(errors),
        held_out=_newest_point(study, layout, policy, progress),
        scored=" ".join(name for name in study.evaluation.sets if layout.scores(folder, name).exists()),
    )


def _planned_steps(policy: Policy) -> int:
    if policy.stage == "rl":
        return policy.recipe.rl.max_steps
    return policy.recipe.sft.max_steps if policy.stage == "sft" and policy.recipe.sft else 0


def _newest_point(study: Study, layout: Layout, policy: Policy, progress: Progress | None) -> CurvePoint | None:
    if study.curve_set is None or policy.stage != "rl" or progress is None:
        return None
    return next(reversed(read_curve_points(layout, policy.folder, study.curve_set, progress.identity)), None)


def _add(shown: Table, row: Row, with_curve: bool) -> None:
    reward = None if row.progress is None else row.progress.reward
    left = None if row.progress is None else row.progress.seconds_left
    shown.add_row(
        row.name,
        Text(row.state, style=STYLES[row.state]),
        ProgressBar(total=row.max_steps, completed=row.step, width=BAR_WIDTH) if row.max_steps else "",
        f"{row.step}/{row.max_steps}" if row.max_steps else "",
        "" if reward is None else f"{reward:.3f}",
        "" if left is None else duration(left),
        row.scored,
        *(["" if row.held_out is None else f"{row.held_out.score:.3f} @{row.held_out.step}"] if with_curve else []),
    )


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

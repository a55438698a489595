"""List runs, steps, tokens and disk before anything starts."""

import argparse
import shutil
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from rlassay.cli.common import add_study_arguments, load
from rlassay.cli.estimates import StageEstimate, checkpoint_bytes, estimate_stages, rollout_completions
from rlassay.config import Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments."""
    add_study_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the arms, the work per stage and the disk it takes; 0."""
    study, layout, settings = load(args)
    stages = estimate_stages(study)
    console = Console()
    seeds = ", ".join(str(seed) for seed in study.seeds)
    console.print(f"{study.title}\n{study.id}, seeds {seeds}, to {layout.root}/", markup=False, highlight=False)
    console.print(_arms(study))
    console.print(_stages(stages))
    for line in _disk(stages, checkpoint_bytes(study), Path(settings.results)):
        console.print(line, markup=False, highlight=False)
    return 0


def _arms(study: Study) -> Table:
    table = Table("arm", title="Arms", caption="steps and completions of one run; a run per seed")
    table.add_column("varies", overflow="fold")
    for title in ("runs", "steps", "completions"):
        table.add_column(title, justify="right")
    for name, arm in study.arms.items():
        varies = "the baseline" if name == study.baseline else ", ".join(arm.varies)
        numbers = (len(study.seeds), arm.recipe.rl.max_steps, rollout_completions(arm.recipe.rl, study.gpus))
        table.add_row(name, escape(varies), *(f"{number:,}" for number in numbers))
    return table


def _stages(stages: list[StageEstimate]) -> Table:
    table = Table(
        "stage", title="Stages", caption="tokens: at most; disk: roughly; -: none, or the config does not tell"
    )
    for title in ("jobs", "steps", "completions", "tokens", "disk"):
        table.add_column(title, justify="right")
    for stage in stages:
        numbers = (stage.jobs, stage.steps, stage.completions, stage.tokens)
        shown = ("-" if number is None else f"{number:,}" for number in numbers)
        table.add_row(stage.stage, *shown, "-" if stage.disk is None else decimal(stage.disk))
    return table


def _disk(stages: list[StageEstimate], checkpoints: int | None, results: Path) -> list[str]:
    """Disk space that the study needs at its end, that a running job needs meanwhile, and that is free."""
    stays = sum(stage.disk or 0 for stage in stages)
    existing = next(folder for folder in (results, *results.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    unknown = "" if checkpoints is not None else " and weights of a size that the config does not tell"
    lines = [
        f"Disk: about {decimal(stays)}{unknown} in the end, "
        f"and up to {decimal(checkpoints or 0)} for each training job while it runs; {decimal(free)} are free"
    ]
    if stays + (checkpoints or 0) > free:
        lines.append("WARNING: the disk is too small for this study")
    return lines

"""List a study's runs, steps, tokens, hours, disk and detectable effects before it starts."""

import argparse
import io
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from rlassay.cli.common import add_study_arguments, load
from rlassay.cli.plans.estimates import StageEstimate, checkpoint_bytes, estimate_stages, rollout_completions
from rlassay.cli.terminal import kept_rows
from rlassay.config import Settings, Study, StudyError, load_study
from rlassay.config.fingerprints import data_id, equal_arms
from rlassay.config.inputs import split_paths
from rlassay.files import read_json
from rlassay.layout import Layout

if TYPE_CHECKING:
    from rlassay.cli.plans.finished import Noise

PREVIEWED_BYTES = 4 * 2**20
"""Largest total size in bytes of data files that the plan reads. Preparing the rows of larger ones takes minutes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, and where the deviations of its scores come from."""
    add_study_arguments(parser)
    parser.add_argument(
        "--deviations", metavar="STUDY", help="a finished study at the same scale whose deviations to expect [the same]"
    )
    parser.add_argument(
        "--guess",
        type=float,
        nargs=2,
        metavar=("SEED_SD", "PROMPT_SD"),
        help="deviations to expect instead: of an arm's score between seeds, of a difference between prompts",
    )
    parser.add_argument("--budget", type=int, metavar="RUNS", help="planned runs whose cost may be spent [all]")


def run(args: argparse.Namespace) -> int:
    """Print a study's plan, and return 0.

    It has the arms, the work of each stage, its time and disk, the rows, and the detectable effects.
    """
    study, layout, settings = load(args)
    stages = estimate_stages(study)
    console = Console()
    console.print(f"{study.title}\n{study.id}, {_seeds(study)}, to {layout.root}/", markup=False, highlight=False)
    console.print(_arms(study))
    for name, other in equal_arms(study).items():
        console.print(f"At this scale arm {name} trains as arm {other} does.", markup=False, highlight=False)
    console.print(_stages(stages))
    console.print(_hardware(study, settings), markup=False, highlight=False)
    for line in [*_forecast(args, study, layout, settings, stages), *_rows(study, layout)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)  # paths stay whole
    return 0


def _seeds(study: Study) -> str:
    if study.sequential is None:
        return f"seeds {', '.join(map(str, study.seeds))}"
    looks = ", ".join(map(str, study.sequential.looks))
    return f"seeds in rounds, looks at {looks} seeds; all numbers below are for the last"


def _hardware(study: Study, settings: Settings) -> str:
    """Processes, GPUs and CPU threads of a job that trains or generates."""
    count = study.num_processes
    threads = settings.resources.threads
    of_each = "a GPU" if study.gpus else f"{threads} CPU thread{'s' if threads > 1 else ''}"
    each = f"{count} processes with {of_each} each" if count > 1 else f"1 process with {of_each}"
    each += f", on {study.nodes} machines" if study.nodes > 1 else ""
    each += f", by {study.strategy}" if study.strategy != "ddp" else ""
    each += " with CPU offload" if study.cpu_offload else ""
    if study.judging_processes:
        held = f"{study.judging_gpus} GPUs" if study.judging_gpus > 1 else of_each
        each += f"; beside each RL run a process with {held} evaluates its held-out curve"
    if study.placed("generate") == study:
        return f"Each training and generation job: {each}"
    shared = study.placed("generate").gpus
    of_one = f"{shared} GPUs" if shared > 1 else of_each
    return f"Each training job: {each}; each generation job: 1 process with {of_one}"


def _forecast(
    args: argparse.Namespace, study: Study, layout: Layout, settings: Settings, stages: list[StageEstimate]
) -> list[str]:
    """Lines about tokens, time, disk and detectable effects."""
    from rlassay.cli.plans.finished import speed_of  # loads pyarrow and scipy
    from rlassay.cli.plans.forecast import power_lines, time_line, tokens_line

    speed = speed_of(study, layout)
    lines = [tokens_line(stages), time_line(stages, speed)]
    lines += _disk(stages, checkpoint_bytes(study), Path(settings.results))
    noise = _noise(args, study, settings)
    if noise is None:
        return [*lines, "Power: unknown; give --deviations with a finished study, or --guess"]
    return lines + power_lines(study, noise, settings.report.confidence, speed, args.budget)


def _noise(args: argparse.Namespace, study: Study, settings: Settings) -> "Noise | None":
    """Deviations from the arguments: a guess, or those of a finished study; StudyError if it has none."""
    from rlassay.cli.plans.finished import noise_of  # loads pyarrow and scipy
    from rlassay.cli.plans.forecast import guessed_noise

    if args.budget is not None and args.budget < 2 * len(study.arms):
        raise StudyError(
            [f"--budget: got {args.budget}, expected at least two runs for each of {len(study.arms)} arms"]
        )
    if args.guess is not None:
        if min(args.guess) < 0:
            raise StudyError([f"--guess: got {args.guess}, expected two deviations of at least 0, such as 0.015 0.1"])
        return guessed_noise(*args.guess)
    other = study if args.deviations is None else load_study(args.deviations, settings.scale)
    noise = noise_of(other, Layout(root=Path(settings.results) / other.id))
    if noise is None and args.deviations is not None:
        raise StudyError([f"--deviations: {other.id} has no two arms with scores of two seeds; run it, or use --guess"])
    return noise


def _arms(study: Study) -> Table:
    table = Table("arm", title="Arms", caption="steps and completions of one run; a run per seed")
    table.add_column("varies", overflow="fold")
    for title in ("runs", "steps", "completions"):
        table.add_column(title, justify="right")
    for name, arm in study.arms.items():
        varies = "the baseline" if name == study.baseline else ", ".join(arm.varies)
        numbers = (len(study.seeds), arm.recipe.rl.max_steps, rollout_completions(arm.recipe.rl, study.num_processes))
        table.add_row(name, escape(varies), *(f"{number:,}" for number in numbers))
    return table


def _stages(stages: list[StageEstimate]) -> Table:
    table = Table(
        "stage", title="Stages", caption="tokens: at most; disk: roughly; -: none, or unknown from the config"
    )
    for title in ("jobs", "steps", "completions", "tokens", "disk"):
        table.add_column(title, justify="right")
    for stage in stages:
        numbers = (stage.jobs, stage.steps, stage.completions, stage.tokens)
        shown = ("-" if number is None else f"{number:,}" for number in numbers)
        table.add_row(stage.stage, *shown, "-" if stage.disk is None else decimal(stage.disk))
    return table


def _disk(stages: list[StageEstimate], checkpoints: int | None, results: Path) -> list[str]:
    """Lines about disk space: needed in the end, needed by a running job, and free."""
    stays = sum(stage.disk or 0 for stage in stages)
    existing = next(folder for folder in (results, *results.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    unknown = "" if checkpoints is not None else " and weights of unknown size"
    lines = [
        f"Disk: about {decimal(stays)}{unknown} in the end, "
        f"and up to {decimal(checkpoints or 0)} for each training job while it runs; {decimal(free)} are free"
    ]
    if stays + (checkpoints or 0) > free:
        lines.append("WARNING: the disk is too small for this study")
    return lines


def _rows(study: Study, layout: Layout) -> Iterator[str]:
    """Lines about each split's rows: how many are kept, and why others are rejected."""
    data = study.data
    rules = f"data.duplicates is {data.duplicates}, data.leaks is {data.leaks}"
    yield f"Rows: {rules}, at most {data.max_rejected:.0%} of the records may be rejected"
    if (read_json(layout.data_manifest) or {}).get("id") == data_id(study):
        yield from kept_rows(layout)
        return
    files = [file for files in split_paths(data).values() for file in files]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    if not files or sum(sizes) > PREVIEWED_BYTES:
        yield "how many are kept is known when the data stage has read them: snakemake --cores 1 prepare_data"
        return
    from rlassay.data import run_prepare_data

    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # its progress bar
        try:
            facts = run_prepare_data(study, Layout(root=Path(folder)))
        except StudyError as error:
            yield from (f"WARNING: {problem}" for problem in error.problems)
            return
    yield from (line for split, one in facts.items() for line in one.kept(split))

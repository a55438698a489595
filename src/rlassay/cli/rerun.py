"""Train an arm again from step 0, and remake every result that depends on it."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from rlassay.cli.common import add_study_arguments, known, load
from rlassay.config import Settings, Study, StudyError
from rlassay.config.load import snakemake_config
from rlassay.config.policies import policies
from rlassay.layout import Layout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, and which jobs to repeat."""
    add_study_arguments(parser)
    parser.add_argument("arm", help="an arm of the study")
    parser.add_argument("--seed", type=int, help="one of its seeds; all by default")
    parser.add_argument(
        "--stage",
        choices=("rl", "sft", "evaluation"),
        default="rl",
        help="where to begin: its RL, the warm start that it shares with other arms, or its answers [%(default)s]",
    )
    parser.add_argument("--cores", default="all", help="CPU cores for Snakemake [%(default)s]")
    parser.add_argument("--dry-run", action="store_true", help="show what would run")


def run(args: argparse.Namespace) -> int:
    """Print the Snakemake command and replace this process by it."""
    study, layout, settings = load(args)
    known("arm", args.arm, study.arms)
    if args.seed is not None:
        known("--seed", str(args.seed), map(str, study.seeds))
    seeds = study.seeds if args.seed is None else (args.seed,)
    files = first_files(study, layout, args.arm, seeds, args.stage)
    command = snakemake_command(settings, files, args.cores) + (["--dry-run"] if args.dry_run else [])
    print(shlex.join(command), flush=True)
    # Not a child: Ctrl-C and SIGTERM must reach Snakemake, which ends its jobs in order.
    os.execv(sys.executable, [sys.executable, "-m", *command])


def first_files(study: Study, layout: Layout, arm: str, seeds: tuple[int, ...], stage: str) -> list[Path]:
    """The outputs of the jobs to repeat; StudyError for the warm start of an arm that has none."""
    runs = [layout.run(arm, seed) for seed in seeds]
    every = policies(study)
    if stage == "rl":
        return [layout.train_manifest(run) for run in runs]
    if stage == "evaluation":
        return [layout.completions(run, name) for run in runs for name in study.evaluation.sets]
    starts = {start.folder: start for run in runs if (start := every[run].start) is not None}
    if any(start.stage != "sft" for start in starts.values()):
        raise StudyError([f"--stage: arm {arm!r} has no warm start to train again; expected rl or evaluation"])
    return [layout.train_manifest(folder, start.stage) for folder, start in starts.items()]


def snakemake_command(settings: Settings, files: list[Path], cores: str) -> list[str]:
    """Snakemake's command line that makes these outputs of the study again."""
    forced = ["--forcerun", *map(str, files)]
    return ["snakemake", "ablation_report", "--cores", cores, "--config", *snakemake_config(settings), *forced]

"""Check a study, its settings and its inputs, and report everything that is wrong."""

import argparse

from rlassay.cli.common import add_study_arguments, load
from rlassay.cli.engines import require_engines
from rlassay.config import StudyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, and how far to look."""
    parser.add_argument("given", nargs="?", metavar="STUDY", help="the same as --study STUDY")
    add_study_arguments(parser)
    parser.add_argument("--deep", action="store_true", help="load the models too, and the data and models on the hub")


def run(args: argparse.Namespace) -> int:
    """Print a line about a sound study, and one for each check left out; 0. StudyError lists the problems."""
    if args.given and args.study:
        raise StudyError([f"got two studies, {args.given} and --study {args.study}; give one"])
    args.study = args.given or args.study
    study, _, settings = load(args)
    require_engines(study)
    from rlassay.cli.trial import try_study  # loads torch

    trial = try_study(study, deep=args.deep)
    if trial.problems:
        raise StudyError(trial.problems, settings.study)
    runs = len(study.arms) * len(study.seeds)
    print(
        f"{study.id}: sound; {len(study.arms)} arms x {len(study.seeds)} seeds = {runs} runs, baseline {study.baseline}"
    )
    for records in trial.rejected:
        print(f"  left out: {records}")
    for note in trial.notes:
        print(f"  not tried: {note}")
    return 0

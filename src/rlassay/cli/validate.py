"""Check a study and its settings, and report everything that is wrong."""

import argparse

from rlassay.cli.common import add_study_arguments, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments."""
    add_study_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print one line about a sound study; 0. A StudyError passes through."""
    study, _, _ = load(args)
    runs = len(study.arms) * len(study.seeds)
    print(
        f"{study.id}: sound; {len(study.arms)} arms x {len(study.seeds)} seeds = {runs} runs, baseline {study.baseline}"
    )
    return 0

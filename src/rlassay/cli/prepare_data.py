"""Write a study's prompts, gold answers, demonstrations and images."""

import argparse

from rlassay.cli.common import add_stage_arguments, check_fingerprint, load, main
from rlassay.config.fingerprints import data_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments and the planned fingerprint."""
    add_stage_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Prepare the data and print one line per split; 0. A StudyError passes through."""
    study, layout, _ = load(args)
    check_fingerprint(args, data_id(study))
    from rlassay.data import run_prepare_data

    for split, facts in run_prepare_data(study, layout).items():
        refused = "".join(f"; {number} refused: {reason}" for reason, number in facts.refused.items())
        print(f"{layout.split(split)}: {facts.rows} rows{refused}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(__doc__, add_arguments, run))

"""Write a study's report: verdicts, tables, figures and page."""

import argparse

from rlassay.cli.common import add_study_arguments, load, main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments and `--partial`."""
    add_study_arguments(parser)
    parser.add_argument("--partial", action="store_true", help="report on what is finished and list what is missing")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its verdicts; 0. A StudyError passes through."""
    study, layout, settings = load(args)
    from rlassay.report import run_report
    from rlassay.tracking import follow

    with follow(study, layout, settings):
        run_report(study, layout, settings, partial=args.partial)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(__doc__, add_arguments, run))

"""Write a report's tables, figures and page again from its `report.json` alone."""

import argparse
from pathlib import Path

from rlassay.layout import PAGE, REPORT_NUMBERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The report folder."""
    parser.add_argument("folder", type=Path, help=f"a report folder with {REPORT_NUMBERS}")


def run(args: argparse.Namespace) -> int:
    """Write the files and print the path of the page; 0. Images come from the data folder, if it still exists."""
    from rlassay.report.run import rewrite

    rewrite(args.folder)
    print(f"Page: {args.folder / PAGE}")
    return 0

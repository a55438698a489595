"""Bring MLflow up to date with the files on disk."""

import argparse
import logging
import sys

from rlassay.cli.common import add_study_arguments, load
from rlassay.layout import REPORT_NUMBERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, and another store."""
    add_study_arguments(parser)
    parser.add_argument("--uri", help="tracking URI [config.yaml: tracking.uri]")


def run(args: argparse.Namespace) -> int:
    """Write the values that the store lacks, with a bar; 0, or 1 with one line if the store refuses them."""
    study, layout, settings = load(args)
    uri = args.uri or settings.tracking.uri
    logging.disable(logging.WARNING)  # MLflow and urllib3 log every retry
    from rlassay.bar import progress_bar
    from rlassay.config.policies import policies
    from rlassay.tracking.links import read_links
    from rlassay.tracking.store import TRACKER_ERRORS, limit_waiting
    from rlassay.tracking.sync import sync_study

    limit_waiting(seconds=30, retries=2)
    try:
        with progress_bar("mlflow-sync", len(policies(study)) + 1, "policy") as bar:
            written = sync_study(study, layout, uri, lambda what: bar.update(), settings.tracking.register_champion)
    except TRACKER_ERRORS as error:
        print(f"error: MLflow at {uri}: {' '.join(str(error).split())[:300]}; run the command again", file=sys.stderr)
        return 1
    is_reported = (layout.report / REPORT_NUMBERS).exists()  # the report decides what they show
    arms = read_links(layout.tracking).arms if is_reported else "after the report is written"
    print(f"The arms side by side: {arms}")
    print(f"{study.id}: {written} values written to {uri}" if written else f"{study.id}: {uri} had everything already")
    return 0

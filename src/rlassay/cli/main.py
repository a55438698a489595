"""rlassay: check, plan, watch and repeat studies of reinforcement-learning recipes."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from rlassay.cli.common import run_parsed

COMMANDS = {
    "validate": "check a study and its settings, and list every problem",
    "new": "write a study that extends another",
    "plan": "list runs, steps, tokens, hours, disk and detectable effects before anything starts",
    "status": "show the progress of every run",
    "compare": "put two finished studies side by side",
    "redraw": "write a report's tables, figures and page again from its report.json",
    "rerun": "train chosen arms again from step 0",
    "mlflow-sync": "bring MLflow up to date with the files on disk",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; only the chosen command's module is imported."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="rlassay", description=__doc__)
    parser.add_argument("--version", action="version", version=f"rlassay {version('rlassay')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    subparsers = {name: commands.add_parser(name, help=about, description=about) for name, about in COMMANDS.items()}
    chosen = arguments[0] if arguments else None
    if chosen in COMMANDS:
        module = importlib.import_module(f"rlassay.cli.{chosen.replace('-', '_')}")
        module.add_arguments(subparsers[chosen])
        return run_parsed(module.run, parser.parse_args(arguments))
    parser.parse_args(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

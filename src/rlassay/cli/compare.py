"""Put two finished studies side by side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlassay.cli.common import load

if TYPE_CHECKING:
    from rlassay.report.compare import ComparedStudies


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two studies, and where their results are."""
    parser.add_argument("first", metavar="A", help="a file's name in config/studies/ or a path")
    parser.add_argument("second", metavar="B", help="the study whose difference from A is shown")
    parser.add_argument("--scale", help="a file's name in config/scales/ or a path, for both; null for none")
    parser.add_argument("--results", help="folder of the results [config.yaml: results]")
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="settings file [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to this file")


def run(args: argparse.Namespace) -> int:
    """Print the primary metric of every arm in both studies, with the difference; 0."""
    from rlassay.report.compare import compare_studies
    from rlassay.report.gather import gather

    first, layout, settings = load(argparse.Namespace(**vars(args), study=args.first))
    second, other, _ = load(argparse.Namespace(**vars(args), study=args.second))
    compared = compare_studies(
        gather(first, layout, settings), gather(second, other, settings), settings.report.confidence
    )
    if args.json is not None:
        args.json.write_text(compared.model_dump_json(indent=1) + "\n", encoding="utf-8")
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table(compared, settings.report.confidence))
    return 0


def table(compared: "ComparedStudies", confidence: float) -> Table:
    """One line per row of the two studies."""
    from rlassay.report.typeset import EFFECT_UNIT, LEVEL_UNIT, with_interval

    unit = compared.column.unit
    title = f"{compared.column.title}, {LEVEL_UNIT[unit]}; {100 * confidence:g}% intervals over seeds and prompts"
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    heads = (compared.first, compared.second, f"{compared.second} − {compared.first}, {EFFECT_UNIT[unit]}")
    for heading in ("", *heads, "note"):
        shown.add_column(heading)
    for row in compared.rows:
        cells = ["" if cell is None else with_interval(cell.mean, cell, unit) for cell in (row.first, row.second)]
        found = row.difference
        change = "" if found is None else with_interval(found.effect, found, unit, signed=True)
        shown.add_row(row.label, *cells, change, Text(row.note))
    return shown

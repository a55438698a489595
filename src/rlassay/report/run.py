"""The report stage: read, analyse, write, say what came out."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import PAGE, REPORT_NUMBERS, Layout
from rlassay.report.analysis import analyse
from rlassay.report.content import Content
from rlassay.report.credit_view import credit_rows
from rlassay.report.gather import gather
from rlassay.report.numbers import Table
from rlassay.report.page import write_page

# MERGED FROM report.writing: Write the numbers: report.json and tables/*.csv, the same bytes for the same
# content.


def write_numbers(content: Content, folder: Path) -> None:
    """Write `report.json` and `tables/*.csv` below the report folder; tables of an earlier report are removed."""
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    frames = build_frames(content)
    for stale in set(tables.glob("*.csv")) - {tables / f"{name}.csv" for name in frames}:
        stale.unlink()
    for name, frame in frames.items():
        _write(tables / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    text = json.dumps(content.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    _write(folder / REPORT_NUMBERS, text + "\n")


def build_frames(content: Content) -> dict[str, pd.DataFrame]:
    """Table name -> one row per number, with what it rests on beside it."""
    frames: dict[str, pd.DataFrame] = {name: pd.DataFrame(_cells(table)) for name, table in content.tables.items()}
    for name, records in (("verdicts", content.verdicts), ("gains", content.gains), ("rewards", content.rewards)):
        frames[name] = pd.json_normalize([one.model_dump() for one in records])
    frames["curves"] = pd.DataFrame(
        [
            {"metric": curve.metric, "unit": curve.unit, "arm": one.arm, "num_seeds": one.num_seeds, **point}
            for curve in content.curves
            for one in curve.series
            for point in _points(one.steps, one.mean, one.low, one.high)
        ]
    )
    credit = {} if content.credit is None else credit_rows(content.credit)
    return frames | {name: pd.DataFrame(rows) for name, rows in credit.items()}


def _cells(table: Table) -> list[dict[str, Any]]:
    return [
        {"row": row.row, "label": row.label, "column": column.key, "unit": column.unit, **cell.model_dump()}
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]


def _points(*columns: tuple[Any, ...]) -> list[dict[str, Any]]:
    names = ("step", "mean", "low", "high")
    return [dict(zip(names, point, strict=True)) for point in zip(*columns, strict=True)]


def _write(path: Path, text: str) -> None:
    # A completion may hold half of a surrogate pair, which UTF-8 cannot carry; as an escape it is valid JSON.
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


# MERGED FROM report.run: The report stage: read, analyse, write, say what came out.

COLORS = {"better": "green", "worse": "red"}


def run_report(study: Study, layout: Layout, settings: Settings, partial: bool = False) -> Content:
    """Write `report.json`, `tables/`, `figures/`, `index.html` and `report.md`; print the verdicts and the page's path.

    Args:
        study: the study.
        layout: where its results lie.
        settings: the level of the intervals, the number of examples, and where commands find the study.
        partial: report on what is finished instead of refusing when something is missing.

    Raises:
        ResultsError: a file is missing (unless `partial`) or damaged; it names the command that makes it again.
    """
    # 1. What is on disk.
    results = gather(study, layout, settings, partial)
    # 2. What it says.
    content = analyse(results, settings.report)
    # 3. Numbers first, so that the page's output file proves that both are there.
    folder = layout.partial_report if partial else layout.report
    write_numbers(content, folder)
    write_page(content, folder)
    # 4. The outcome, where the user is looking.
    announce(content, folder)
    return content


def announce(content: Content, folder: Path) -> None:
    """Print the verdicts, what is missing, and where the page is."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(f"\n{content.study.title}", style="bold"))
    for verdict in content.verdicts:
        console.print(Text(f"  {verdict.sentence}", style=COLORS.get(verdict.outcome, "")))
    if content.missing:
        are = "1 file is" if len(content.missing) == 1 else f"{len(content.missing)} files are"
        console.print(Text(f"  Partial: {are} missing; the page says which."))
    console.print(Text(f"Page: {folder / PAGE}\n"))

"""The report stage: read, analyse, write, say what came out."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report.analysis import analyse
from rlassay.report.content import Content
from rlassay.report.gather import gather
from rlassay.report.page import write_page
from rlassay.report.writing import write_numbers

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
    console.print(Text(f"Page: {folder / 'index.html'}\n"))

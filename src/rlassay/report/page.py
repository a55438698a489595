"""Render report.md and the page, one HTML file without requests; untrusted text stays text.

The page's only script sorts tables. Its content security policy admits this script and the style sheet by their hashes.
"""

import csv
import re
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment
from markupsafe import Markup

from rlassay.layout import COMPLETIONS_PAGE, FIGURES, PAGE, REPORT_TEXT
from rlassay.report import typeset
from rlassay.report.content import Content
from rlassay.report.credit_page import most_attended, switch_rules, viewer_variables, weighted_text
from rlassay.report.export.plotted import plotted_rows
from rlassay.report.figures import assign_marks, draw_figures, write_figures
from rlassay.report.figures_style import MARKERS, Drawing, Mark, dark_rules
from rlassay.report.findings import sentences
from rlassay.report.numbers import Example, SampleRow

SECTIONS = {
    "verdicts": "Answer",
    "rounds": "Rounds of seeds",
    "attribution": "Attribution",
    "results": "Results",
    "design": "Design",
    "held_out": "Held-out curves",
    "training": "Learning curves",
    "hacking": "Reward hacking",
    "rewards": "Reward by reward",
    "credit": "Token credit",
    "length": "Length and truncation",
    "parsing": "Parse failures",
    "examples": "Completions side by side",
    "data": "Data",
    "cost": "Cost",
    "commands": "Run it again",
    "intervals": "How the intervals are computed",
    "provenance": "Provenance",
}
"""Section id -> heading, in the order of `page.html.jinja`."""


def write_page(content: Content, folder: Path) -> None:
    """Write `figures/*`, `index.html` and `report.md`; the same bytes for the same content.

    Args:
        content: the content of the report.
        folder: the report folder; paths of images are relative to it.
    """
    marks = assign_marks(content)
    drawings = draw_figures(content, marks)
    write_figures(drawings, marks, folder / FIGURES)
    _write_plotted(content, folder / FIGURES)
    _write(folder / PAGE, render_page(content, marks, drawings, folder))
    _write(folder / REPORT_TEXT, render_markdown(content, drawings))


def _write_plotted(content: Content, folder: Path) -> None:
    """Write `<figure>.csv` beside each figure; files of an earlier report are removed."""
    for stale in folder.glob("*.csv"):
        stale.unlink()
    for name, rows in plotted_rows(content).items():
        text = StringIO()
        columns = dict.fromkeys(key for row in rows for key in row)
        table = csv.DictWriter(text, list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        _write(folder / f"{name}.csv", text.getvalue())


def render_page(content: Content, marks: dict[str, Mark], drawings: list[Drawing], folder: Path) -> str:
    """The page as HTML text: one file with style, figures and images inlined."""
    environment = typeset.template_environment()
    style = _style(environment, marks, content)
    script = environment.get_template("tables.js").render()
    return environment.get_template("page.html.jinja").render(
        **sentences.template_variables(content),
        **viewer_variables(content, folder),
        completions_page=COMPLETIONS_PAGE,
        sections=_sections(content),
        folded=folded_sections(content),
        pass_columns=_pass_columns(content),
        marks=marks,
        shapes=MARKERS,
        drawings=drawings,
        samples={path: typeset.thumbnail(folder / path, frames) for path, frames in _sample_images(content).items()},
        images={example.prompt_id: _example_images(example, folder) for example in content.examples},
        config=yaml.safe_dump(content.config, sort_keys=False, allow_unicode=True),
        style=Markup(style),
        style_hash=typeset.content_hash(style),
        script=Markup(script),
        script_hash=typeset.content_hash(script),
        plotted=set(plotted_rows(content)),
    )


def _style(environment: Environment, marks: dict[str, Mark], content: Content) -> str:
    """The style sheet; the content security policy holds its hash, so no other style applies."""
    rules = dark_rules([mark.color for mark in marks.values()], prefix="svg ")
    source = "".join(environment.get_template(name).render() for name in ("page.css", "credit.css", "print.css"))
    return f"{source}{switch_rules(content)}@media (prefers-color-scheme: dark) {{\n{rules}\n}}\n"


def _sections(content: Content) -> dict[str, str]:
    """Section id -> heading, without the sections that are empty in this study."""
    empty = {
        "rounds": content.rounds is None or not content.rounds.taken,
        "attribution": content.attribution is None,
        "held_out": content.held_out is None,
        "training": not content.curves,
        "hacking": not content.hacking,
        "rewards": not content.rewards,
        "credit": not sentences.has_credit(content),
        "parsing": "parsing" not in content.tables,
        "examples": not content.examples,
        "cost": not content.cost,
    }
    return {name: heading for name, heading in SECTIONS.items() if not empty.get(name, False)}


def folded_sections(content: Content) -> dict[str, str]:
    """Section id -> the line beside its heading, for sections that are folded at first.

    A section about something that the arms vary is open.
    """
    varied = {part for row in content.design.rows for part in (row.key.split(".")[0], row.key.split(".")[-1])}
    lines = {
        "rewards": f"{typeset.counted(len({part.reward for part in content.rewards}), 'reward')} during training",
        "credit": "the same in every arm",
        "length": sentences.table_range(content, "length"),
        "parsing": sentences.table_range(content, "parsing"),
        "data": ", ".join(f"{split.split} {split.rows:,} rows" for split in content.data),
        "cost": sentences.cost_summary(content),
        "commands": "one command for everything, one for each run",
        "intervals": f"{sentences.level(content)} intervals over seeds and prompts",
        "provenance": typeset.shortened(sentences.version_list(content), 100),
    }
    opened = {"rewards": "rewards", "credit": "credit", "length": "max_completion_length"}
    if not any(sign.alarm for sign in content.hacking):
        lines["hacking"] = f"no alarm; {len({sign.kind for sign in content.hacking})} signs watched in every arm"
    shown = _sections(content)
    return {name: line for name, line in lines.items() if name in shown and opened.get(name) not in varied}


def _pass_columns(content: Content) -> list[int]:
    """Places of the pass@k columns that no other table shows.

    pass@1 is avg@k, and one more is in `main`.
    """
    if "pass_at_k" not in content.tables:
        return []
    known = {column.key for column in content.tables["main"].columns}
    columns = content.tables["pass_at_k"].columns
    return [i for i, one in enumerate(columns) if one.key not in known and one.metric != "pass_at_1"]


def _sample_images(content: Content) -> dict[str, int]:
    """Sample rows' images in order: path from the report folder -> number of frames."""
    return dict(sorted(pair for split in content.data for row in split.samples for pair in _with_frames(row)))


def _example_images(example: Example, folder: Path) -> list[dict[str, str | int]]:
    """The images of an example in full, and its film strips as thumbnails."""
    return [
        (typeset.inline_image(folder / path) if frames == 1 else typeset.thumbnail(folder / path, frames))
        | {"name": path}
        for path, frames in _with_frames(example)
    ]


def _with_frames(row: Example | SampleRow) -> list[tuple[str, int]]:
    """Each image and its frames; one each in reports of earlier versions, which state none."""
    return list(zip(row.images, row.frames or (1,) * len(row.images), strict=True))


def render_markdown(content: Content, drawings: list[Drawing]) -> str:
    """The report as GitHub-flavoured Markdown; every value is escaped once, by a filter or by `finalize`."""
    filters = {"code": code_span, "block": code_block, "link": link}
    environment = typeset.template_environment(filters, finalize=_escape_value, lstrip_blocks=True)
    return environment.get_template("report.md.jinja").render(
        **sentences.template_variables(content),
        drawings=drawings,
        weighted_text=weighted_text,
        most_attended=most_attended,
    )


def _escape_value(value: Any) -> Any:
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def escape(text: str) -> Markup:
    """Escape text so that Markdown shows it unchanged on one line.

    That holds in a table cell too.
    """
    flat = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    marked = re.sub(r"([\\`*_\[\]#|~$!>]|^[-+=](?=\s|$))", r"\\\1", flat)
    return Markup(re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", marked))


def code_span(text: str) -> Markup:
    """Text as inline code, fenced by more backticks than it has in a row; escaped text if code cannot hold it."""
    if "\\|" in text:
        return escape(text)
    flat = " ".join(text.split()).replace("|", "\\|") or " "
    fence = "`" * (_longest_run(flat) + 1)
    space = " " if flat.startswith("`") or flat.endswith("`") else ""
    return Markup(f"{fence}{space}{flat}{space}{fence}")


def code_block(text: str) -> Markup:
    """Text as a code block that nothing in the text can close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markup(f"{fence}text\n{text}\n{fence}")


def link(path: str) -> Markup:
    """A relative path as the target of a link or image."""
    return Markup(quote(path))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _write(path: Path, text: str) -> None:
    path.write_text(typeset.printable(text), encoding="utf-8", newline="\n")

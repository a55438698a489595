"""Renders the page: a self-contained HTML file without scripts or requests; untrusted text stays text."""

import base64
import hashlib
from pathlib import Path

import yaml
from jinja2 import Environment
from markupsafe import Markup

from rlassay.layout import PAGE, REPORT_TEXT
from rlassay.report import typeset
from rlassay.report.content import Content
from rlassay.report.credit_page import switch_rules, viewer_variables
from rlassay.report.figures import assign_marks, draw_figures, write_figures
from rlassay.report.figures_style import MARKERS, Drawing, Mark, dark_rules
from rlassay.report.inline_images import inline_image, thumbnail
from rlassay.report.markdown import render_markdown
from rlassay.report.numbers import Example

SECTIONS = {
    "verdicts": "Verdicts",
    "results": "Results",
    "design": "Design",
    "training": "Learning curves",
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
    """Write `figures/*.svg`, `index.html` and `report.md`; the same bytes for the same content.

    Args:
        content: the content of the report.
        folder: the report folder; paths of images are relative to it.
    """
    marks = assign_marks(content)
    drawings = draw_figures(content, marks)
    write_figures(drawings, marks, folder / "figures")
    _write(folder / PAGE, render_page(content, marks, drawings, folder))
    _write(folder / REPORT_TEXT, render_markdown(content, drawings))


def render_page(content: Content, marks: dict[str, Mark], drawings: list[Drawing], folder: Path) -> str:
    """The page as HTML text."""
    environment = typeset.template_environment()
    style = _style(environment, marks, content)
    return environment.get_template("page.html.jinja").render(
        **typeset.template_variables(content),
        **viewer_variables(content, folder),
        sections=_sections(content),
        marks=marks,
        shapes=MARKERS,
        drawings=drawings,
        samples={path: thumbnail(folder / path) for path in _sample_images(content)},
        images={example.prompt_id: _example_images(example, folder) for example in content.examples},
        config=yaml.safe_dump(content.config, sort_keys=False, allow_unicode=True),
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def _style(environment: Environment, marks: dict[str, Mark], content: Content) -> str:
    """The style sheet; the content security policy holds its hash, so no other style applies."""
    rules = dark_rules([mark.color for mark in marks.values()], prefix="svg ")
    source = "".join(environment.get_template(name).render() for name in ("page.css", "credit.css"))
    return f"{source}{switch_rules(content)}@media (prefers-color-scheme: dark) {{\n{rules}\n}}\n"


def _sections(content: Content) -> dict[str, str]:
    """Section id -> heading, without the sections that are empty in this study."""
    empty = {
        "training": not content.curves,
        "rewards": not content.rewards,
        "credit": not typeset.has_credit(content),
        "parsing": "parsing" not in content.tables,
        "examples": not content.examples,
        "cost": not content.cost,
    }
    return {name: heading for name, heading in SECTIONS.items() if not empty.get(name, False)}


def _sample_images(content: Content) -> list[str]:
    """Paths of all images of the sample rows, relative to the report folder."""
    return sorted({path for split in content.data for row in split.samples for path in row.images})


def _example_images(example: Example, folder: Path) -> list[dict[str, str | int]]:
    return [inline_image(folder / path) | {"name": path} for path in example.images]


def _write(path: Path, text: str) -> None:
    path.write_text(typeset.printable(text), encoding="utf-8", newline="\n")

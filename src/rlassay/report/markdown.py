"""Renders report.md: the facts of the page for readers of repositories and terminals."""

import re
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from rlassay.report import typeset
from rlassay.report.content import Content
from rlassay.report.credit_page import weighted_text
from rlassay.report.figures_style import Drawing


def render_markdown(content: Content, drawings: list[Drawing]) -> str:
    """The report as GitHub-flavoured Markdown; every value is escaped once, by a filter or by `finalize`."""
    filters = {"code": code_span, "block": code_block, "link": link}
    environment = typeset.template_environment(filters, finalize=_escape_value, lstrip_blocks=True)
    return environment.get_template("report.md.jinja").render(
        **typeset.template_variables(content), drawings=drawings, weighted_text=weighted_text
    )


def _escape_value(value: Any) -> Any:
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def escape(text: str) -> Markup:
    """Text that Markdown shows unchanged on one line, also in a table cell."""
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

"""Write the completion browser: `completions.html`, and its data in pages that it loads as scripts.

Pages are scripts because web browsers let a page from disk load no other kind of data. The content security policy
admits the page's own script, by its hash, and the scripts that this one adds; completions are data and never run.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rlassay.layout import COMPLETIONS_DATA, COMPLETIONS_PAGE
from rlassay.names import in_words
from rlassay.report import typeset
from rlassay.report.completions.collect import PromptCompletions, Source, sources
from rlassay.report.content import Content
from rlassay.report.figures import assign_marks
from rlassay.report.figures_style import MARKERS, dark_rules
from rlassay.report.gather import Results

PAGE_SIZE = 400_000
"""Characters after which a page of data ends."""
LISTED = 110
"""Characters of a question in the list of prompts."""


def write_browser(results: Results, content: Content, folder: Path, rollout_steps: int) -> None:
    """Write `completions.html` and `completions/<source>-<page>.js` into the report folder.

    Args:
        results: the files of the study.
        content: the content of the report, for labels and colours.
        folder: the report folder; images are relative to it.
        rollout_steps: steps of training whose rollouts it shows.
    """
    data = folder / COMPLETIONS_DATA
    data.mkdir(parents=True, exist_ok=True)
    for stale in data.glob("*.js"):
        stale.unlink()
    rows = [row.row for row in content.tables["main"].rows]
    images = Thumbnails(folder)
    index = [_write_source(source, rows, images, data) for source in sources(results, rollout_steps)]
    first = next(iter(sorted(data.glob(f"{index[0]['key']}-0.js"))), None) if index else None
    (folder / COMPLETIONS_PAGE).write_text(_render(content, index, first), encoding="utf-8", newline="\n")


class Thumbnails:
    """Small copies of images as data URIs, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, dict[str, str | int]] = {}

    def of(self, found: PromptCompletions) -> list[dict[str, str | int]]:
        """The images of a prompt, and the film strips of its clips."""
        shown = [media for media in found.prompt.media if media.shown]
        for media in shown:
            if media.shown not in self._made:
                path = self._folder / "../data" / media.shown
                self._made[media.shown] = typeset.thumbnail(path, media.num_frames)
        return [self._made[media.shown] for media in shown]


# Data.


def _write_source(source: Source, rows: list[str], images: Thumbnails, folder: Path) -> dict[str, Any]:
    """Write the pages of a source; return its entry of the index."""
    listed: list[list[Any]] = []
    for number, (prompts, page) in enumerate(_pages(source, rows, images)):
        call = f"rlassayPage({json.dumps(source.key)}, {number}, {as_script(page)});\n"
        (folder / f"{source.key}-{number}.js").write_text(call, encoding="utf-8", newline="\n")
        listed += [[one.key, _listed(one), number, _shares(source, one, rows)] for one in prompts]
    return {
        "key": source.key,
        "title": source.title,
        "metrics": [in_words(metric) for metric in source.metrics],
        "right": None if source.right is None else source.metrics.index(source.right),
        "prompts": listed,
    }


def _pages(
    source: Source, rows: list[str], images: Thumbnails
) -> Iterator[tuple[list[PromptCompletions], dict[str, Any]]]:
    """The prompts of a source in pages, each with the texts of its completions once."""
    prompts: list[PromptCompletions] = []
    texts: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    size = 0
    for one in source.prompts:
        known = len(texts)
        entry = _entry(one, rows, images, texts)
        prompts.append(one)
        entries.append(entry)
        size += len(json.dumps(entry)) + sum(len(text) for text in list(texts)[known:])
        if size > PAGE_SIZE:
            yield prompts, {"texts": list(texts), "prompts": entries}
            prompts, texts, entries, size = [], {}, [], 0
    if entries:
        yield prompts, {"texts": list(texts), "prompts": entries}


def _entry(found: PromptCompletions, rows: list[str], images: Thumbnails, texts: dict[str, int]) -> dict[str, Any]:
    return {
        "key": found.key,
        "step": found.step,
        "question": typeset.printable(found.prompt.question),
        "choices": [typeset.printable(choice) for choice in found.prompt.choices],
        "answer": typeset.printable(found.prompt.answer),
        "images": images.of(found),
        "policies": [
            [
                rows.index(row),
                seed,
                [
                    [
                        texts.setdefault(typeset.printable(one.text), len(texts)),
                        int(one.greedy),
                        one.sample,
                        one.token_count,
                        int(one.finished),
                        one.scores,
                        one.advantage,
                    ]
                    for one in completions
                ],
            ]
            for row, seed, completions in found.policies
        ],
    }


def _listed(found: PromptCompletions) -> str:
    step = "" if found.step is None else f"step {found.step}: "
    return step + typeset.one_line(found.prompt.question, LISTED)


def _shares(source: Source, found: PromptCompletions, rows: list[str]) -> list[float | None]:
    """Per table row, the share of its sampled completions that are right; null = none is scored."""
    if source.right is None:
        return []
    place = source.metrics.index(source.right)
    scores: dict[str, list[float]] = {row: [] for row in rows}
    for row, _, completions in found.policies:
        scores[row] += [
            one.scores[place] or 0.0 for one in completions if not one.greedy and one.scores[place] is not None
        ]
    return [round(sum(each) / len(each), 3) if each else None for each in scores.values()]


def as_script(value: Any) -> str:
    """JSON that is also a valid part of a script and of an HTML page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


# The page.


def _render(content: Content, index: list[dict[str, Any]], first: Path | None) -> str:
    environment = typeset.template_environment()
    marks = assign_marks(content)
    rules = dark_rules([mark.color for mark in marks.values()], prefix="svg ")
    source = "".join(environment.get_template(name).render() for name in ("page.css", "completions.css", "print.css"))
    style = f"{source}@media (prefers-color-scheme: dark) {{\n{rules}\n}}\n"
    script = environment.get_template("completions.js").render()
    rows = [
        {
            "label": row.label,
            "arm": row.kind == "arm",
            "color": marks[row.row].color,
            "path": MARKERS[marks[row.row].marker],
        }
        for row in content.tables["main"].rows
    ]
    names = [row.row for row in content.tables["main"].rows]
    data = {
        "rows": rows,
        "reference": names.index(content.study.baseline),
        "folder": COMPLETIONS_DATA,
        "sources": index,
    }
    return environment.get_template("completions.html.jinja").render(
        title=content.study.title,
        study=content.study.id,
        style=Markup(style),
        style_hash=typeset.content_hash(style),
        script=Markup(script),
        script_hash=typeset.content_hash(script),
        index=Markup(as_script(data)),
        first=Markup("" if first is None else first.read_text(encoding="utf-8")),
        first_hash="" if first is None else typeset.content_hash(first.read_text(encoding="utf-8")),
    )

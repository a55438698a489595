"""`fake_content` with hostile text in every field that a study, a model or a data set can fill."""

from typing import Any

from rlassay.records import Record
from rlassay.report.content import Content
from tests.report.fake_content import fake_content

SCRIPT = "<script>document.title='ran'; alert('ran')</script>"
TEXTS = (
    SCRIPT,
    "</pre></style></title><img src=http://evil.example/x.png onerror=\"alert('ran')\">",
    '\'"><svg onload=alert(1)><a href="javascript:alert(1)">{{ 7 * 7 }}{% raw %}',
    "x" * 10_000,
    "```\n# not a heading | not a cell\n![](http://evil.example/y.png)\n````",
    "שלום \u202eright to left\u202c 😀👩‍👩‍👧 \ufdfa",
    "null \x00 bell \x07 lone surrogate \ud800 noncharacter \uffff",
    "$\\frac{unclosed$ \\n & &amp; &lt;b&gt;",
)
KEPT = {"name", "row", "arm", "reference", "baseline", "color", "key", "primary", "prompt_id", "metric", "reward"}
"""Fields with keys, colours or names that the config validates."""


def hostile_content() -> Content:
    """`fake_content` with each free text replaced by the next of `TEXTS`; keys stay."""
    texts = _endless()
    content = _replaced(fake_content(), texts)
    completions = content.examples[0].completions
    shown = tuple(
        completion.model_copy(update={"text": text})
        for completion, text in zip(completions, TEXTS[: len(completions)], strict=True)
    )
    more = content.examples[0].model_copy(
        update={"prompt_id": "2233ccdd", "completions": tuple(_with_text(completions[0], text) for text in TEXTS)}
    )
    first = content.examples[0].model_copy(update={"completions": shown})
    return content.model_copy(
        update={"examples": (first, more), "config": {text[:40]: [text] for text in TEXTS if "\ud800" not in text}}
    )


def _with_text(completion: Any, text: str) -> Any:
    return completion.model_copy(update={"text": text})


def _endless() -> Any:
    while True:
        yield from TEXTS


def _replaced(value: Any, texts: Any) -> Any:
    """The record with its free texts replaced; numbers, keys and literals stay."""
    if not isinstance(value, Record):
        return tuple(_replaced(part, texts) for part in value) if isinstance(value, tuple) else value
    changed = {}
    for field, info in type(value).model_fields.items():
        old = getattr(value, field)
        if info.annotation is str and field not in KEPT:
            changed[field] = next(texts)
        elif field in ("answers", "refused"):
            changed[field] = {f"{key} {next(texts)}": count for key, count in old.items()}
        elif field == "tables":
            changed[field] = {name: _replaced(table, texts) for name, table in old.items()}
        elif field in ("choices", "clips") and old and isinstance(old, tuple):
            changed[field] = tuple(next(texts) for _ in old)
        elif isinstance(old, Record | tuple):
            changed[field] = _replaced(old, texts)
    return value.model_copy(update=changed)

"""A real summarization set without a download: what the docstrings of installed packages say, and their first lines."""

import ast
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rlassay.bar import progress_bar
from rlassay.config import StudyError
from rlassay.config.data import Docstrings, ImagePolicy
from rlassay.data.drafts import Draft
from rlassay.data.duplicates import plain
from rlassay.data.images import Images
from rlassay.data.intake import Intake, Rows, take_in
from rlassay.records import TRAINING_SPLITS

HELD_OUT = 0.2
"""Share of the documents that splits other than `sft` and `train` draw on."""
SUMMARY_WORDS = (4, 30)
DOCUMENT_WORDS = 20
_SECTION = re.compile(r"\n[^\n]+\n-{3,}\n")


def docstrings(section: Docstrings, images: Images) -> Rows:
    """Documents in the order of their digests, each once and in one split.

    The digest also parts held-out from training documents, so that enlarging one split leaves the others as they are
    for as long as they stand before it. The rows follow the installed versions of the packages.
    """
    found: dict[str, Draft] = {}
    with progress_bar("docstrings", None, "file") as bar:
        for name in section.packages:
            for file, module in _modules(name):
                bar.update()
                for draft in drafts_of_module(file.read_text(encoding="utf-8"), module, section.max_words):
                    found.setdefault(hashlib.sha256(plain(draft.question).encode()).hexdigest(), draft)
    pools: dict[bool, list[Draft]] = {True: [], False: []}
    for digest in sorted(found):
        pools[int(digest[:8], 16) < HELD_OUT * 2**32].append(found[digest])
    drafts: dict[str, Callable[[], Iterator[Draft]]] = {}
    for split, count in section.splits.items():
        pool = pools[split not in TRAINING_SPLITS]
        drafts[split] = partial(iter, pool[:count])
        del pool[:count]
    return take_in(drafts, section.splits, Intake(policy=ImagePolicy(), images=images))


def drafts_of_module(source: str, module: str, max_words: int) -> Iterator[Draft]:
    """The usable docstrings of a module's public classes and functions: a one-line summary and enough prose below it.

    Parameter lists, examples and other underlined sections are left out: the document is prose.
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        summary, _, body = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n\n")
        words = _SECTION.split(f"\n{body}")[0].split()
        low, high = SUMMARY_WORDS
        if summary.endswith(".") and low <= len(summary.split()) <= high and len(words) >= DOCUMENT_WORDS:
            summary, document = " ".join(summary.split()), " ".join(words[:max_words])
            meta = {"object": f"{module}.{node.name}"}
            yield Draft(question=document, answer=summary, demonstration=summary, meta=meta)


def _modules(package: str) -> Iterator[tuple[Path, str]]:
    """The package's source files and module names, in order; tests and what they carry along are left out."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise StudyError(
            [f"data.packages: {package!r} is no installed package; install it, or remove it from the list"]
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if not {"tests", "testing", "_vendored", "conftest"}.intersection(parts):
            yield file, ".".join((package, *parts)).removesuffix(".__init__")

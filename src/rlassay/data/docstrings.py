"""A real summarization set without a download: what the docstrings of installed packages say, and their first lines."""

import ast
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import accumulate, pairwise
from pathlib import Path

from rlassay.config import StudyError
from rlassay.config.data import Docstrings
from rlassay.config.fingerprints import package_version
from rlassay.data.drafts import Draft, Source
from rlassay.data.duplicates import plain
from rlassay.records import TRAINING_SPLITS

HELD_OUT = 0.2
"""Share of the documents that splits other than `sft` and `train` draw on."""
SUMMARY_WORDS = (4, 30)
DOCUMENT_WORDS = 20
_SECTION = re.compile(r"\n[^\n]+\n-{3,}\n")
# A one-line sentence at the start of a docstring, then prose: what a usable docstring looks like before it is parsed.
_PROMISING = re.compile(r'"""\s*[^\s"][^"\n]{6,}\.[ \t]*\n[ \t]*\n[ \t]*[^\s"-]')


def docstrings(section: Docstrings) -> Source:
    """Documents in the order of their modules' digests, each in one split.

    The digest of a document decides its split: a fifth of them is held out for evaluation. Files are read until each
    split is full. The rows follow the installed versions of the packages, which are part of the data's fingerprint.
    """
    modules = [module for name in section.packages for module in _modules(name)]
    modules.sort(key=lambda module: _digest(module[1]))

    @cache
    def of_module(place: int) -> list[Draft]:
        file, name = modules[place]
        return list(drafts_of_module(file.read_text(encoding="utf-8"), name, section.max_words))

    def of_split(low: float, high: float) -> Iterator[Draft]:
        for place in range(len(modules)):
            for draft in of_module(place):
                if low <= int(_digest(plain(draft.question))[:8], 16) / 2**32 < high:
                    yield draft

    shares = _shares(section.splits)
    drafts: dict[str, Callable[[], Iterator[Draft]]] = {
        split: partial(of_split, *shares[split]) for split in section.splits
    }
    return Source(drafts=drafts)


def drafts_of_module(source: str, module: str, max_words: int) -> Iterator[Draft]:
    """The usable docstrings of a module's public classes and functions: a one-line summary and enough prose below it.

    Parameter lists, examples and other underlined sections are left out: the document is prose.
    """
    if not _PROMISING.search(source):
        return
    for node in _public(ast.parse(source).body):
        summary, _, body = inspect.cleandoc(ast.get_docstring(node, clean=False) or "").partition("\n\n")
        words = _SECTION.split(f"\n{body}")[0].split()
        low, high = SUMMARY_WORDS
        if summary.endswith(".") and low <= len(summary.split()) <= high and len(words) >= DOCUMENT_WORDS:
            summary, document = " ".join(summary.split()), " ".join(words[:max_words])
            meta = {"object": f"{module}.{node.name}"}
            yield Draft(question=document, answer=summary, demonstration=summary, meta=meta)


def _public(statements: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public classes and functions, and the public methods of public classes, in the order of the text."""
    for node in statements:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


def _shares(splits: dict[str, int]) -> dict[str, tuple[float, float]]:
    """The part of [0, 1) that each split's documents are drawn from, in proportion to its rows."""
    shares: dict[str, tuple[float, float]] = {}
    for training, start, width in ((False, 0.0, HELD_OUT), (True, HELD_OUT, 1 - HELD_OUT)):
        chosen = {split: count for split, count in splits.items() if (split in TRAINING_SPLITS) == training}
        ends = [start, *(start + width * part / sum(chosen.values()) for part in accumulate(chosen.values()))]
        shares |= dict(zip(chosen, pairwise(ends), strict=True))
    return shares


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _modules(package: str) -> Iterator[tuple[Path, str]]:
    """The package's source files and module names; tests and what they carry along are left out."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations or package_version(package) is None:
        raise StudyError(
            [f"data.packages: {package!r} is no installed package with a version; install it, or remove it"]
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        if not {"tests", "testing", "_vendored", "conftest"}.intersection(parts):
            yield file, ".".join((package, *parts)).removesuffix(".__init__")

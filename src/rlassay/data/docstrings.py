"""A summarization data set without a download: bodies and first lines of the docstrings of installed packages."""

import ast
import hashlib
import importlib.util
import inspect
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import accumulate, pairwise
from pathlib import Path

from rlassay.config import StudyError
from rlassay.config.data import Docstrings
from rlassay.config.fingerprints import package_version
from rlassay.data.raw_examples import RawExample, Source
from rlassay.records import TRAINING_SPLITS

HELD_OUT = 0.2
"""Share of the documents that are for splits other than `sft` and `train`."""
SUMMARY_WORDS = (4, 30)
DOCUMENT_WORDS = 20
_SECTION = re.compile(r"\n[^\n]+\n-{3,}\n")
# A sentence on the first line of a docstring, then prose; parsing only the modules that match saves most of the time.
_CANDIDATE = re.compile(r'"""\s*[^\s"][^"\n]{6,}\.[ \t]*\n[ \t]*\n[ \t]*[^\s"-]')


def docstrings(section: Docstrings) -> Source:
    """Documents in the order of their modules' digests, each in one split.

    A digest of the document selects its split: a fifth is held out for evaluation. Files are read until each split is
    full. The rows depend on the installed versions of the packages, which are part of the data's fingerprint.
    """
    modules = [module for name in section.packages for module in _modules(name)]
    modules.sort(key=lambda module: _digest(module[1]))

    @cache
    def examples_of(index: int) -> list[RawExample]:
        file, name = modules[index]
        return list(examples_of_module(file.read_text(encoding="utf-8"), name, section.max_words))

    def read_split(low: float, high: float) -> Iterator[RawExample]:
        for index in range(len(modules)):
            for example in examples_of(index):
                if low <= int(_digest(_words(example.question))[:8], 16) / 2**32 < high:
                    yield example

    ranges = _digest_ranges(section.splits)
    examples: dict[str, Callable[[], Iterator[RawExample]]] = {
        split: partial(read_split, *ranges[split]) for split in section.splits
    }
    return Source(examples=examples, generated=True)


def examples_of_module(source: str, module: str, max_words: int) -> Iterator[RawExample]:
    """The usable docstrings of a module's public classes and functions: a one-line summary and enough prose below.

    Parameter lists, examples and other underlined sections are left out, so that the document is prose.
    """
    if not _CANDIDATE.search(source):
        return
    for node in _public(ast.parse(source).body):
        summary, _, body = inspect.cleandoc(ast.get_docstring(node, clean=False) or "").partition("\n\n")
        words = _SECTION.split(f"\n{body}")[0].split()
        low, high = SUMMARY_WORDS
        if summary.endswith(".") and low <= len(summary.split()) <= high and len(words) >= DOCUMENT_WORDS:
            summary, document = " ".join(summary.split()), " ".join(words[:max_words])
            meta = {"object": f"{module}.{node.name}"}
            yield RawExample(question=document, answer=summary, demonstration=summary, meta=meta)


def _public(statements: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public classes and functions, and the public methods of public classes, in source order."""
    for node in statements:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


def _digest_ranges(splits: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Split -> the range within [0, 1) of its documents' digests, as wide as its share of the rows."""
    ranges: dict[str, tuple[float, float]] = {}
    for training, start, width in ((False, 0.0, HELD_OUT), (True, HELD_OUT, 1 - HELD_OUT)):
        chosen = {split: count for split, count in splits.items() if (split in TRAINING_SPLITS) == training}
        ends = [start, *(start + width * part / sum(chosen.values()) for part in accumulate(chosen.values()))]
        ranges |= dict(zip(chosen, pairwise(ends), strict=True))
    return ranges


def _words(text: str) -> str:
    """The text without case, spacing and punctuation, so that nearly equal documents are in the same split."""
    return " ".join(re.findall(r"\w+|[^\w\s.,;:!?'\"()]", unicodedata.normalize("NFKC", text).casefold()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _modules(package: str) -> Iterator[tuple[Path, str]]:
    """The package's source files and module names, without tests and vendored code."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations or package_version(package) is None:
        raise StudyError(
            [f"data.packages: {package!r} is not an installed package with a version; install it, or remove it"]
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        if not {"tests", "testing", "_vendored", "conftest"}.intersection(parts):
            yield file, ".".join((package, *parts)).removesuffix(".__init__")

"""Summarization without a download, from the docstrings of installed packages.

- `docstrings`: the body of a docstring, and its first line as the summary.
- `headlines`: a sentence, and its first content words as the headline.
"""

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
from rlassay.config.data import Docstrings, Headlines, PackageTexts
from rlassay.config.fingerprints import package_version
from rlassay.data.raw_examples import RawExample, Source
from rlassay.records import TRAINING_SPLITS

HELD_OUT = 0.2
"""Share of the documents that are for splits other than `sft` and `train`."""
SUMMARY_WORDS = (4, 30)
DOCUMENT_WORDS = 20
HEADLINE_WORDS = 5
SENTENCE_WORDS = (7, 18)
REFERENCE_SHARE, PREFIX_SHARE = 0.4, 0.3
"""Shares of demonstrations that are the headline, and the sentence's first words; the others are two words long."""
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a all also an and any are as at be been both but by can could do does each for from had has have how if in"
        " into is it its may more most must no not of on only or other our should so some such than that the their"
        " them then there these they this those to use used using was we were what when where whether which while will"
        " with would you your",
    )
)
_PLAIN = re.compile(r"[A-Z][A-Za-z0-9 ,'()/-]+\.")
_PROSE_BREAK = re.compile(r"\n\s*\n")
_SENTENCE_BREAK = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_SECTION = re.compile(r"\n[^\n]+\n-{3,}\n")
# A sentence on the first line of a docstring, then prose; parsing only the modules that match saves most of the time.
_CANDIDATE = re.compile(r'"""\s*[^\s"][^"\n]{6,}\.[ \t]*\n[ \t]*\n[ \t]*[^\s"-]')


def docstrings(section: Docstrings) -> Source:
    """Bodies of docstrings with their first lines as summaries, see `_source`."""
    return _source(section, partial(examples_of_module, max_words=section.max_words))


def headlines(section: Headlines) -> Source:
    """Sentences of docstrings with their first content words as headlines, see `_source`."""
    return _source(section, headlines_of_module)


def _source(section: PackageTexts, read: Callable[[str, str], Iterator[RawExample]]) -> Source:
    """Documents in the order of their modules' digests, each in one split.

    A digest of the document selects its split: a fifth is held out for evaluation. Files are read until each split is
    full. The rows depend on the installed versions of the packages, which are part of the data's fingerprint.
    """
    modules = [module for name in section.packages for module in _modules(name)]
    modules.sort(key=lambda module: _digest(module[1]))

    @cache
    def examples_of(index: int) -> list[RawExample]:
        file, name = modules[index]
        return list(read(file.read_text(encoding="utf-8"), name))

    def read_split(low: float, high: float) -> Iterator[RawExample]:
        for index in range(len(modules)):
            for example in examples_of(index):
                if low <= int(_digest(_words(example.question))[:8], 16) / 2**32 < high:
                    yield example

    splits = section.model_dump()["splits"]
    ranges = _digest_ranges(splits)
    examples: dict[str, Callable[[], Iterator[RawExample]]] = {
        split: partial(read_split, *ranges[split]) for split in splits
    }
    return Source(examples=examples, generated=True)


def examples_of_module(source: str, module: str, max_words: int) -> Iterator[RawExample]:
    """The usable docstrings of a module's public classes and functions.

    Usable are those with a one-line summary and enough prose below. Parameter lists, examples and other underlined
    sections are left out, so that the document is prose.
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


def headlines_of_module(source: str, module: str) -> Iterator[RawExample]:
    """The plain sentences in a module's public docstrings, each with its headline.

    The docstrings are those of public classes and functions. A headline is the sentence's first five content words,
    which are all but function words. Demonstrations are of mixed quality, so that RL has something to gain: some are
    the headline, some the sentence's first five words, the others its first two; a digest of the sentence decides.
    """
    low, high = SENTENCE_WORDS
    for node in _public(ast.parse(source).body):
        docstring = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
        for paragraph in _PROSE_BREAK.split(_SECTION.split(f"\n{docstring}")[0]):
            for sentence in _SENTENCE_BREAK.split(" ".join(paragraph.split())):
                words = [word.strip(",.()'") for word in sentence.split()]
                content = [word for word in words if word and word.lower() not in _STOP_WORDS][:HEADLINE_WORDS]
                if _PLAIN.fullmatch(sentence) and low <= len(words) <= high and len(content) == HEADLINE_WORDS:
                    yield RawExample(
                        question=sentence,
                        answer=" ".join(content),
                        demonstration=_headline(sentence, words, content),
                        meta={"object": f"{module}.{node.name}"},
                    )


def _headline(sentence: str, words: list[str], content: list[str]) -> str:
    share = int(_digest(sentence)[:8], 16) / 2**32
    if share < REFERENCE_SHARE:
        return " ".join(content)
    return " ".join(words[:HEADLINE_WORDS] if share < REFERENCE_SHARE + PREFIX_SHARE else words[:2])


def _public(statements: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public classes and functions, and the public methods of public classes, in source order."""
    for node in statements:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


def _digest_ranges(splits: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Split -> range of its documents' digests in [0, 1), in proportion to its rows.

    Evaluation splits divide the part below `HELD_OUT`, training splits the rest.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for training, start, width in ((False, 0.0, HELD_OUT), (True, HELD_OUT, 1 - HELD_OUT)):
        chosen = {split: count for split, count in splits.items() if (split in TRAINING_SPLITS) == training}
        ends = [start, *(start + width * part / sum(chosen.values()) for part in accumulate(chosen.values()))]
        ranges |= dict(zip(chosen, pairwise(ends), strict=True))
    return ranges


def _words(text: str) -> str:
    """The text without case, spacing and punctuation.

    Nearly equal documents are thereby in the same split.
    """
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

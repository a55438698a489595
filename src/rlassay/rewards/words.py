"""Words of a text in any script, for rewards that compare texts."""

import re
import unicodedata
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Chinese characters, which are written without blanks between words."""
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
_CHARACTER = re.compile(rf"[{CJK}]")


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case and NFKC form; each Chinese character and kana is a word of its own."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def has_word(text: str) -> bool:
    """Whether `words` finds any."""
    return _WORD.search(unicodedata.normalize("NFKC", text)) is not None


def stems(text: str) -> list[str]:
    """The words, those of more than three letters without their English endings."""
    return [_stem(word) if len(word) > 3 else word for word in words(text)]


def count_words(text: str) -> int:
    """Pieces between blanks; a piece with Chinese characters or kana counts the words in it."""
    return sum(max(1, len(words(piece))) if _CHARACTER.search(piece) else 1 for piece in text.split())


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


@cache
def _stemmer() -> Any:
    """The library has no types; it is imported here, because that takes a second."""
    return import_module("nltk.stem.porter").PorterStemmer()

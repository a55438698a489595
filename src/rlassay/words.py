"""From tokens to words: what a reader can take in, with each signal averaged over a word's tokens."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from typing import NamedTuple

from rlassay.rewards.rouge import CJK

END = "⟨end⟩"
"""Stands for the end-of-sequence token, which has no text."""
LONGEST = 40
"""Characters after which text without blanks is cut into words."""
_WORD = re.compile(rf"</?\w{{1,30}}>|[{CJK}]|\d[\d.,]{{0,{LONGEST}}}|[^\s<\d{CJK}]{{1,{LONGEST}}}|<")
_EDGES = " .,;:!?\"'`()[]{}*“”‘’"


class Piece(NamedTuple):
    """One word and the tokens that it is made of."""

    before: str
    """White space before it."""
    text: str
    """The word."""
    tokens: range
    """Indices of the tokens that share a character with it."""


def pieces(tokens: Sequence[str]) -> list[Piece]:
    """The words of a completion: tags, numbers, Chinese characters and kana one by one, else what blanks part.

    A token that crosses a boundary belongs to the words on both sides, one that is all blank to none, and one without
    text, which begins a character of several tokens, to the word with that character. An empty last token is the end of
    the sequence and a word of its own, `END`.
    """
    ends = list(accumulate(len(token) for token in tokens))
    text = "".join(tokens)
    found = list(_WORD.finditer(text))
    starts = [0, *(word.end() for word in found)][: len(found)]
    made = [
        Piece(
            text[start : word.start()],
            word.group(),
            range(_first(tokens, bisect_right(ends, word.start())), bisect_left(ends, word.end()) + 1),
        )
        for start, word in zip(starts, found, strict=True)
    ]
    last = len(tokens) - 1
    return [*made, Piece(" ", END, range(last, last + 1))] if tokens and not tokens[-1] else made


def _first(tokens: Sequence[str], place: int) -> int:
    """`place`, or the first of the tokens without text right before it."""
    while place and not tokens[place - 1]:
        place -= 1
    return place


def mean_over(piece: Piece, values: Sequence[float | None] | None) -> float | None:
    """Mean of a per-token signal over a word's tokens; None where nothing finite was measured."""
    seen = [values[place] for place in piece.tokens] if values is not None else []
    finite = [value for value in seen if value is not None and isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def same_word(text: str) -> str:
    """The form under which occurrences of a word are counted together: lower case, no punctuation around it."""
    return text if text == END else text.strip(_EDGES).lower() or text

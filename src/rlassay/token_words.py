"""Group tokens into words for display, and average a signal over a word's tokens."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from typing import NamedTuple

from rlassay.rewards.rouge import CJK

END = "⟨end⟩"
"""The word shown for the end-of-sequence token, which has no text."""
LONGEST = 40
"""Characters after which text without blanks is cut into words."""
_WORD = re.compile(rf"</?\w{{1,30}}>|[{CJK}]|\d[\d.,]{{0,{LONGEST}}}|[^\s<\d{CJK}]{{1,{LONGEST}}}|<")
_PUNCTUATION = " .,;:!?\"'`()[]{}*“”‘’"


class Word(NamedTuple):
    """One word and its tokens."""

    before: str
    """White space before it."""
    text: str
    """The word."""
    tokens: range
    """Indices of the tokens that share a character with it."""


def split_words(tokens: Sequence[str]) -> list[Word]:
    """The words of a completion, given the text of each token.

    A word is a tag, a number, a single Chinese character or kana, or a run of other characters between blanks.

    A token that crosses a word boundary belongs to both words, a blank token to none. A token without text begins a
    character of several tokens, and belongs to the word with that character. An empty last token is the end of the
    sequence; it is a word of its own, `END`.
    """
    ends = list(accumulate(len(token) for token in tokens))
    text = "".join(tokens)
    matches = list(_WORD.finditer(text))
    starts = [0, *(match.end() for match in matches)][: len(matches)]
    words = [
        Word(
            text[start : match.start()],
            match.group(),
            range(_first_token(tokens, bisect_right(ends, match.start())), bisect_left(ends, match.end()) + 1),
        )
        for start, match in zip(starts, matches, strict=True)
    ]
    last = len(tokens) - 1
    return [*words, Word(" ", END, range(last, last + 1))] if tokens and not tokens[-1] else words


def _first_token(tokens: Sequence[str], index: int) -> int:
    """`index`, or the first of the tokens without text right before it."""
    while index and not tokens[index - 1]:
        index -= 1
    return index


def word_mean(word: Word, values: Sequence[float | None] | None) -> float | None:
    """Mean of a per-token signal over the tokens of a word; None without a finite value."""
    of_word = [values[index] for index in word.tokens] if values is not None else []
    finite = [value for value in of_word if value is not None and isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def word_form(text: str) -> str:
    """A word in lower case without punctuation around it; punctuation alone and the end token stay as they are."""
    return text if text == END else text.strip(_PUNCTUATION).lower() or text

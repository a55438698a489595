"""Rewards for the overlap with a reference text, the row's answer; words are those of any script."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from rlassay.records import Completion
from rlassay.rewards.outcomes import Scored, value_of
from rlassay.rewards.reward import per_completion

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Chinese characters, which have no blanks between words; for a regex character class."""
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
_CHARACTER = re.compile(rf"[{CJK}]")
_LONGEST_CHARACTERS = 20_000
_LONGEST_WORDS = 512
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_AVERAGED = ("rouge1", "rouge2", "rougeLsum")


@per_completion
def rouge_average(completion: Completion) -> float | None:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-Lsum against the row's answer, without stemming.

    ROUGE-Lsum goes sentence by sentence.

    `<n>` is a line end. The first 512 words of either text are compared. 0 for a completion without words; None for an
    answer without words. An answer of one word has no bigram, so that ROUGE-2 is left out.

    Source: the reward of LingjieBao1998/Unlimited-Learning. Departures: words of every script, the answer of one word,
    and the limit, since the time grows with the product of the lengths.
    """
    return value_of(_rouge(completion, _AVERAGED))


def rouge_scored(completions: Sequence[Completion]) -> list[Scored | None]:
    """`rouge_average` with metrics: F1 of `rouge1`, `rouge2`, `rougeL` and `rougeLsum`, all without stemming."""
    return [_rouge(completion, (*_AVERAGED, "rougeL")) for completion in completions]


def _rouge(completion: Completion, kinds: tuple[str, ...]) -> Scored | None:
    """The mean of the averaged kinds, and the F1 of every admitted kind."""
    shortcut = _shortcut(completion)
    if shortcut is not None and shortcut.value is None:
        return None
    reference = _sentences(completion.row.answer)
    defined = [kind for kind in kinds if kind != "rouge2" or len(words(reference)) > 1]
    if shortcut is None:
        scores = _scorer(kinds, words).score(reference, _sentences(completion.text))
        found = {kind: float(scores[kind].fmeasure) for kind in defined}
    else:
        found = {kind: float(shortcut.value or 0.0) for kind in defined}
    averaged = [found[kind] for kind in _AVERAGED if kind in found]
    return Scored(value=sum(averaged) / len(averaged), metrics=found)


@per_completion
def rouge_l(completion: Completion) -> float | None:
    """F1 of ROUGE-L, the longest common subsequence of stemmed words, against the row's answer.

    The first 512 words of either text are compared. 0 for a completion without words; None for an answer without words.

    Source: the reward of the chat variant of LingjieBao1998/Unlimited-Learning; departures as in `rouge_average`.
    """
    shortcut = _shortcut(completion)
    if shortcut is not None:
        return shortcut.value
    reference, text = (each[:_LONGEST_CHARACTERS] for each in (completion.row.answer, completion.text))
    return float(_scorer(("rougeL",), stems).score(reference, text)["rougeL"].fmeasure)


@dataclass(frozen=True)
class _Shortcut:
    value: float | None


def _shortcut(completion: Completion) -> _Shortcut | None:
    """The value where it follows without a comparison, else None.

    This saves most of the time of the gold check.
    """
    if not has_word(completion.row.answer[:_LONGEST_CHARACTERS]):
        return _Shortcut(None)
    if not has_word(completion.text[:_LONGEST_CHARACTERS]):
        return _Shortcut(0.0)
    return _Shortcut(1.0) if completion.text == completion.row.answer else None


def _sentences(text: str) -> str:
    """The first words of a text, one sentence per line."""
    plain = text[:_LONGEST_CHARACTERS].replace("<n>", " ")
    kept: list[str] = []
    left = _LONGEST_WORDS
    for sentence in _SENTENCE_END.sub("\n", plain).split("\n"):
        if left <= 0:
            break
        kept.append(sentence)
        left -= len(words(sentence))
    return "\n".join(kept)


@dataclass(frozen=True)
class _Tokenizer:
    """Splits by `words` or `stems`; the library's own tokenizer drops every letter outside of a-z."""

    split: Callable[[str], list[str]]

    def tokenize(self, text: str) -> list[str]:
        return self.split(text)[:_LONGEST_WORDS]


@cache
def _scorer(kinds: tuple[str, ...], split: Callable[[str], list[str]]) -> Any:
    """The library has no types; it is imported here, since that takes a second."""
    return import_module("rouge_score.rouge_scorer").RougeScorer(kinds, tokenizer=_Tokenizer(split))


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case and NFKC form; Chinese characters and kana are words of their own."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def has_word(text: str) -> bool:
    """Whether `words` finds any."""
    return _WORD.search(unicodedata.normalize("NFKC", text)) is not None


def stems(text: str) -> list[str]:
    """The words; those of more than three letters lose their English endings."""
    return [_stem(word) if len(word) > 3 else word for word in words(text)]


def count_words(text: str) -> int:
    """Number of pieces between blanks; a piece with Chinese characters or kana counts the words in it."""
    return sum(max(1, len(words(piece))) if _CHARACTER.search(piece) else 1 for piece in text.split())


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


@cache
def _stemmer() -> Any:
    """The library has no types; it is imported here, since that takes a second."""
    return import_module("nltk.stem.porter").PorterStemmer()

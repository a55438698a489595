"""Rewards for the overlap with a reference text, which is the row's answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from rlassay.records import Completion
from rlassay.rewards.lift import lift
from rlassay.rewards.words import stems, words

_LONGEST_CHARACTERS = 20_000
_LONGEST_WORDS = 512
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


@dataclass(frozen=True)
class _Tokenizer:
    """The library's own drops every letter outside of a-z, so that identical Chinese texts score 0."""

    split: Callable[[str], list[str]]

    def tokenize(self, text: str) -> list[str]:
        return self.split(text)[:_LONGEST_WORDS]


_AVERAGED = ("rouge1", "rouge2", "rougeLsum")


@lift
def rouge_average(completion: Completion) -> float | None:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-Lsum (sentence by sentence) against the row's answer, without stemming.

    `<n>` stands for a line end. The first 512 words of either text are compared. 0 where either has no word.

    Source: the reward of LingjieBao1998/Unlimited-Learning. Departures: words of every script, and the
    limit, since the time grows with the product of the lengths.
    """
    scores = _scorer(_AVERAGED, words).score(_sentences(completion.row.answer), _sentences(completion.text))
    return sum(float(scores[kind].fmeasure) for kind in _AVERAGED) / len(_AVERAGED)


@lift
def rouge_l(completion: Completion) -> float | None:
    """F1 of ROUGE-L, the longest common subsequence of stemmed words, against the row's answer.

    The first 512 words of either text are compared. 0 where either has no word.

    Source: the reward of the chat variant of LingjieBao1998/Unlimited-Learning; departures as in `rouge_average`.
    """
    reference, text = (each[:_LONGEST_CHARACTERS] for each in (completion.row.answer, completion.text))
    return float(_scorer(("rougeL",), stems).score(reference, text)["rougeL"].fmeasure)


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


@cache
def _scorer(kinds: tuple[str, ...], split: Callable[[str], list[str]]) -> Any:
    """The library has no types; it is imported here, because that takes a second."""
    return import_module("rouge_score.rouge_scorer").RougeScorer(kinds, tokenizer=_Tokenizer(split))

"""Rewards for the right answer: an option letter, free text, or a set of actions."""

import re
import unicodedata

from rlassay.answers import extract_answer, extract_choice
from rlassay.records import Completion
from rlassay.rewards.reward import per_completion

_THINK = re.compile(r"<think>.*?</think>", re.IGNORECASE | re.DOTALL)
_THINK_END = re.compile(r"</think>", re.IGNORECASE)
_CUE = re.compile(r"answer|答案|选项|choice|option", re.IGNORECASE)
_LETTER = "[A-JＡ-Ｊ]"
# Whitespace is possessive, since no later part matches whitespace: a megabyte of blanks stays linear.
_IS = r"\s*+(?:is|为|是)?\s*+[:：-]?\s*+"
_IN_A_LINE = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:final answer|answer|答案){_IS}(?:option|choice|选项)?\s*+[(\[\s]*+({_LETTER})",
        rf"(?:option|choice|选项){_IS}[(\[\s]*+({_LETTER})",
        rf"[（(]?({_LETTER})[）)]?\s*+$",
    )
]
_ALONE = re.compile(rf"\b({_LETTER})\b")
_ASCII = str.maketrans("ＡＢＣＤＥＦＧＨＩＪ", "ABCDEFGHIJ")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ACTION = re.compile(r"\((\d+)\)")


@per_completion
def choice_accuracy(completion: Completion, *, strict_source: bool = False) -> float | None:
    """1 if the stated option letter is the gold letter, else 0; None for a row without choices.

    A completion that states no letter, or two different ones, gets 0; see `rlassay.answers.extract_choice`.

    Args:
        completion: the completion.
        strict_source: read the letter exactly as JuncyLu/trl_DAPO, branch trl, including its misreadings.

    Source: `strict_source` is the accuracy reward of JuncyLu/trl_DAPO, branch trl; the default is this project's own.
    """
    row = completion.row
    if not row.choices:
        return None
    text = completion.text
    choice = extract_choice_as_published(text) if strict_source else extract_choice(text, row.letters)
    return float(choice == row.answer)


def extract_choice_as_published(text: str) -> str | None:
    """The letter A-J that the published patterns find, or None; their misreadings are kept.

    Complete think blocks are deleted. Lines with a cue word are tried from the last to the first; if none has a letter,
    the last capital letter that is a word of its own counts. A full-width small letter matches but is not mapped to
    ASCII, so it gives None.

    Source: JuncyLu/trl_DAPO, branch trl, at f0cbd71c.
    """
    text = _without_think_blocks(text)
    found = _in_cued_lines(text)
    if found is None:
        alone = _ALONE.findall(text)
        found = alone[-1] if alone else None
    letter = None if found is None else found.translate(_ASCII).upper()
    return letter if letter is not None and "A" <= letter <= "J" else None


def _without_think_blocks(text: str) -> str:
    """The text without complete think blocks; only text before the last closing tag is searched, which is linear."""
    ends = [match.end() for match in _THINK_END.finditer(text)]
    last = ends[-1] if ends else 0
    return _THINK.sub("", text[:last]) + text[last:]


def _in_cued_lines(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        if _CUE.search(line):
            for pattern in _IN_A_LINE:
                match = pattern.search(line.strip())
                if match:
                    return match[1]
    return None


@per_completion
def exact_match(completion: Completion) -> float | None:
    """1 if the stated answer equals the gold answer as text, else 0; None for a row with a blank gold answer.

    `extract_answer` reads both, so that a gold answer may be in `<answer>` or `\\boxed`. They are compared in
    Unicode's NFKC form with runs of whitespace as one space; case counts.
    """
    gold = _normal(extract_answer(completion.row.answer))
    if not gold:
        return None
    return float(_normal(extract_answer(completion.text)) == gold)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


@per_completion
def action_set_iou(completion: Completion) -> float | None:
    """1 if the answer lists exactly the gold actions, else their intersection over union.

    Actions are the numbers in round brackets inside the first `<answer>` block; a completion without such a block gets
    0. The gold actions are in the row's answer, with or without `<answer>`. The lists are first compared sorted, with
    repeats; the sets ignore repeats, so that (1)(1)(2) against (1)(2) is 1 as well. No action against no gold action
    is 1 only if the gold answer is blank.

    Source: the accuracy reward of ChristianLin0420/Qwen2.5-VL-Video. Departure: there, no action against no gold action
    is always 1, even if the gold answer has text without brackets.
    """
    block = _first_answer_block(completion.text)
    if block is None:
        return 0.0
    gold_text = _gold_actions(completion.row.answer)
    stated, gold = _ACTION.findall(block), _ACTION.findall(gold_text)
    if not gold:
        return float(not stated and not gold_text.strip())
    if sorted(stated) == sorted(gold):
        return 1.0
    return len(set(stated) & set(gold)) / len(set(stated) | set(gold))


def names_actions(answer: str) -> bool:
    """Whether `action_set_iou` finds an action in a gold answer."""
    return _ACTION.search(_gold_actions(answer)) is not None


def _gold_actions(answer: str) -> str:
    block = _first_answer_block(answer)
    return answer if block is None else block


def _first_answer_block(text: str) -> str | None:
    """Contents of the first `<answer>` block; the search stops at the last closing tag, which keeps it linear."""
    match = _ANSWER.search(text, 0, text.rfind("</answer>") + len("</answer>")) if "</answer>" in text else None
    return None if match is None else match[1]

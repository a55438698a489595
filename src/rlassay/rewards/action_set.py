"""Reward for naming the right actions by their numbers."""

import re

from rlassay.records import Completion
from rlassay.rewards.lift import lift

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ACTION = re.compile(r"\((\d+)\)")


@lift
def action_set_iou(completion: Completion) -> float | None:
    """1 if the answer lists exactly the gold actions, else the intersection over union of the two sets.

    Actions are the numbers in round brackets inside the first `<answer>` block; without such a block it is 0. The gold
    actions stand in the row's answer, inside `<answer>` or not. Lists are compared in sorted order, repeats counted;
    sets forget repeats, so that (1)(1)(2) against (1)(2) is 1 as well. No action against none is 1 only where the gold
    answer is blank.

    Source: the accuracy reward of ChristianLin0420/Qwen2.5-VL-Video. Departure: there, none against none is
    always 1, also when the gold answer has no brackets.
    """
    block = _first_block(completion.text)
    if block is None:
        return 0.0
    gold_text = _gold_text(completion.row.answer)
    named, gold = _ACTION.findall(block), _ACTION.findall(gold_text)
    if not gold:
        return float(not named and not gold_text.strip())
    if sorted(named) == sorted(gold):
        return 1.0
    return len(set(named) & set(gold)) / len(set(named) | set(gold))


def names_actions(answer: str) -> bool:
    """Whether a gold answer names an action, as this reward reads it."""
    return _ACTION.search(_gold_text(answer)) is not None


def _gold_text(answer: str) -> str:
    inside = _first_block(answer)
    return answer if inside is None else inside


def _first_block(text: str) -> str | None:
    """What the first `<answer>` block holds; without a closing tag nothing is searched, which keeps this linear."""
    match = _ANSWER.search(text, 0, text.rfind("</answer>") + len("</answer>")) if "</answer>" in text else None
    return None if match is None else match[1]

"""The gold check: a reward that pays for accuracy must pay the gold answer most and the empty string least."""

from rlassay.records import Completion, PromptRow
from rlassay.rewards.accuracy import choice_accuracy
from rlassay.rewards.lift import Reward

GOLD_CHECKED: dict[str, tuple[Reward, float, float]] = {"choice_accuracy": (choice_accuracy, 0.0, 1.0)}
"""Accuracy-like rewards with their minimum and maximum."""


def gold_refusal(row: PromptRow) -> str | None:
    """Why a row may not be used, or None; a reward that cannot judge the row refuses nothing."""
    group = [Completion(text=text, token_count=1, finished=True, row=row) for text in (row.answer, "")]
    for name, (reward, low, high) in GOLD_CHECKED.items():
        gold, empty = reward(group)
        if gold not in (None, high):
            return f"{name} pays the gold answer {gold:g} of {high:g}"
        if empty not in (None, low):
            return f"{name} pays an empty completion {empty:g}"
    return None

"""The gold check: a reward that pays for accuracy must pay the gold answer most and the empty string least."""

from collections.abc import Callable

from rlassay.prompts import demonstrate
from rlassay.records import Completion, PromptRow
from rlassay.rewards.accuracy import action_set_iou, choice_accuracy, exact_match, names_actions
from rlassay.rewards.mathematics import math_accuracy
from rlassay.rewards.options import Reward
from rlassay.rewards.rouge import rouge_average, rouge_l


def _alone(row: PromptRow) -> str | None:
    return row.answer


def _of_actions(row: PromptRow) -> str | None:
    if not names_actions(row.answer):
        return None
    return row.answer if "<answer>" in row.answer else demonstrate(row.answer)


GOLD_CHECKED: dict[str, tuple[Reward, Callable[[PromptRow], str | None]]] = {
    "choice_accuracy": (choice_accuracy, _alone),
    "exact_match": (exact_match, _alone),
    "math_accuracy": (math_accuracy, _alone),
    "action_set_iou": (action_set_iou, _of_actions),
    "rouge_average": (rouge_average, _alone),
    "rouge_l": (rouge_l, _alone),
}
"""Accuracy-like rewards, all from 0 to 1, and the completion that states a row's gold answer in the form that each
reads; None for a row of another kind than it is made for."""


def gold_refusal(row: PromptRow) -> str | None:
    """Why a row may not be used, or None.

    Every accuracy-like reward is asked, with its default options, whether or not an arm uses it: which rows a study has
    must not depend on its arms, or a new arm would change the data of all others. A reward that cannot judge the row,
    or is made for rows of another kind, refuses nothing.
    """
    for name, (reward, stating) in GOLD_CHECKED.items():
        text = stating(row)
        if text is None:
            continue
        gold, empty = reward([_completion(text, row), _completion("", row)])
        if gold not in (None, 1.0):
            return f"{name} pays the gold answer {gold:g} of 1"
        if empty not in (None, 0.0):
            return f"{name} pays an empty completion {empty:g}"
    return None


def _completion(text: str, row: PromptRow) -> Completion:
    return Completion(text=text, token_count=1, finished=True, row=row)

"""The gold check of accuracy rewards, which the data stage runs on every row.

A reward must give the gold answer its maximum and an empty completion its minimum. The check imports its rewards by
name, so that the data depend on the code of these rewards alone, not on every entry of `rlassay.rewards.REWARDS`.
"""

from collections.abc import Callable

from rlassay.prompts import demonstrate
from rlassay.records import Completion, PromptRow
from rlassay.rewards.accuracy import action_set_iou, choice_accuracy, exact_match, names_actions
from rlassay.rewards.mathematics import math_accuracy
from rlassay.rewards.reward import Reward
from rlassay.rewards.rouge import rouge_average, rouge_l


def _gold_answer(row: PromptRow) -> str | None:
    return row.answer


def _gold_actions(row: PromptRow) -> str | None:
    if not names_actions(row.answer):
        return None
    return row.answer if "<answer>" in row.answer else demonstrate(row.answer)


GOLD_CHECKED: dict[str, tuple[Reward, Callable[[PromptRow], str | None]]] = {
    "choice_accuracy": (choice_accuracy, _gold_answer),
    "exact_match": (exact_match, _gold_answer),
    "math_accuracy": (math_accuracy, _gold_answer),
    "action_set_iou": (action_set_iou, _gold_actions),
    "rouge_average": (rouge_average, _gold_answer),
    "rouge_l": (rouge_l, _gold_answer),
}
"""Accuracy rewards from 0 to 1, each with a function for the gold completion.

The function takes a row and returns the completion that states its gold answer, or None for a row to which the reward
does not apply.
"""


def gold_refusal(row: PromptRow) -> str | None:
    """The reason to reject a row, or None.

    All accuracy rewards are checked with their default options, whether or not an arm uses them: the rows of a study
    must not depend on its arms, or a new arm would change the data of all others. A reward that cannot score the row,
    or does not apply to it, rejects nothing.
    """
    completions: dict[str, Completion] = {}  # most rewards are checked with the same two
    for name, (reward, gold_completion) in GOLD_CHECKED.items():
        text = gold_completion(row)
        if text is None:
            continue
        for one in (text, ""):
            if one not in completions:
                completions[one] = Completion(text=one, token_count=1, finished=True, row=row)
        gold, empty = reward([completions[text], completions[""]])
        if gold not in (None, 1.0):
            return f"{name} pays the gold answer {gold:g} of 1"
        if empty not in (None, 0.0):
            return f"{name} pays an empty completion {empty:g}"
    return None

"""Rewards for the right answer."""

from rlassay.answers import extract_choice
from rlassay.records import Completion
from rlassay.rewards.lift import lift


@lift
def choice_accuracy(completion: Completion) -> float | None:
    """1 if the stated option letter is the gold one, else 0; None for a row without choices.

    Nothing stated and conflicting statements are 0; `rlassay.answers.extract_choice` reads the text.
    """
    row = completion.row
    if not row.choices:
        return None
    return float(extract_choice(completion.text, row.letters) == row.answer)

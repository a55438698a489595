"""Rewards for the right answer."""

from rlassay.answers import extract_choice
from rlassay.records import Completion
from rlassay.rewards.lift import lift


@lift
def choice_accuracy(completion: Completion) -> float | None:
    """1 if the stated option letter is the gold one, else 0; None for a row without choices.

    Nothing stated and conflicting statements are 0.

    Source: formulas.md 2.1, the accuracy reward of the `mdi` system, with the parsing repairs of its trap 8.
    """
    row = completion.row
    if not row.choices:
        return None
    return float(extract_choice(completion.text, row.letters) == row.answer)

"""Rewards for the right answer."""

import unicodedata

from rlassay.answers import extract_answer, extract_choice
from rlassay.records import Completion
from rlassay.rewards.lift import lift
from rlassay.rewards.source_choice import extract_choice_as_published


@lift
def choice_accuracy(completion: Completion, *, strict_source: bool = False) -> float | None:
    """1 if the stated option letter is the gold one, else 0; None for a row without choices.

    Nothing stated and conflicting statements are 0; `rlassay.answers.extract_choice` reads the text.

    Args:
        completion: the completion.
        strict_source: read the letter exactly as JuncyLu/trl_DAPO, branch trl does, misreadings included.

    Source: `strict_source` is the accuracy reward of JuncyLu/trl_DAPO, branch trl; the default is this project's own.
    """
    row = completion.row
    if not row.choices:
        return None
    text = completion.text
    choice = extract_choice_as_published(text) if strict_source else extract_choice(text, row.letters)
    return float(choice == row.answer)


@lift
def exact_match(completion: Completion) -> float | None:
    """1 if the stated answer is the gold one, letter by letter, else 0; None for a row whose gold answer is blank.

    Both are read by `extract_answer`, so that a gold answer may stand in `<answer>` or `\\boxed`, and compared in
    Unicode's NFKC form, runs of whitespace made one space; capitals count.
    """
    gold = _normal(extract_answer(completion.row.answer))
    if not gold:
        return None
    return float(_normal(extract_answer(completion.text)) == gold)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())

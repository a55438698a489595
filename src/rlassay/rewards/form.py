"""Rewards for the form of a completion."""

from rlassay.records import Completion
from rlassay.rewards.lift import lift


@lift
def think_answer_format(completion: Completion) -> float | None:
    """0.3 [a think block] + 0.3 [an answer block] + 0.4 [the first think block ends before the first answer begins].

    Values are 0, 0.3, 0.6 and 1; other text around the blocks is tolerated, and what they hold is not looked at.

    Source: this project's own grading; a binary format reward gives a group no signal until one completion has it all.
    """
    think = _first_block(completion.text, "think")
    answer = _first_block(completion.text, "answer")
    in_order = think is not None and answer is not None and think[1] <= answer[0]
    return 0.3 * (think is not None) + 0.3 * (answer is not None) + 0.4 * in_order


def _first_block(text: str, tag: str) -> tuple[int, int] | None:
    """Where the first `<tag>...</tag>` begins and ends."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    begin = text.find(opening)
    end = text.find(closing, begin + len(opening)) if begin >= 0 else -1
    return None if end < 0 else (begin, end + len(closing))

"""Rewards for the format of a completion: its think and answer tags."""

import re

from rlassay.records import Completion
from rlassay.rewards.reward import per_completion

_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
# The thought may be greedy, since the count of four tags rules out a second `</think>` in it.
_STRICT = re.compile(
    r"<think>(?P<thought>.*)</think>\s*+<answer>\s*+(?:[A-J]|\[[A-J]\]|\[[A-J]|[A-J]\])\s*+</answer>\s*+", re.DOTALL
)


@per_completion
def think_answer_format(completion: Completion) -> float | None:
    """0.3 for a think block, 0.3 for an answer block, 0.4 for their order.

    The order is right if the first think block ends before the first answer begins. The values are 0, 0.3, 0.6 and 1.
    Other text around the blocks is allowed; their contents do not matter.

    Source: this project's own grading; a binary format reward gives a group no signal until one completion has all.
    """
    think = _first_block(completion.text, "think")
    answer = _first_block(completion.text, "answer")
    in_order = think is not None and answer is not None and think[1] <= answer[0]
    return 0.3 * (think is not None) + 0.3 * (answer is not None) + 0.4 * in_order


def _first_block(text: str, tag: str) -> tuple[int, int] | None:
    """Start and end of the first `<tag>...</tag>`; None without one."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    begin = text.find(opening)
    end = text.find(closing, begin + len(opening)) if begin >= 0 else -1
    return None if end < 0 else (begin, end + len(closing))


@per_completion
def think_format(completion: Completion) -> float | None:
    """1 if the text begins with `<think>`, closes it and opens no second, else 0.

    An empty thought and a second `</think>` are accepted; blanks before `<think>` are not.

    Source: the format reward of JuncyLu/trl_DAPO, branch trl, which is TRL's `think_format_reward`.
    """
    opening = "<think>"
    rest = completion.text[len(opening) :]
    return float(completion.text.startswith(opening) and opening not in rest and "</think>" in rest)


@per_completion
def strict_think_answer_format(completion: Completion) -> float | None:
    """1 if the text is `<think>...</think><answer>X</answer>` and nothing else, else 0.

    Only whitespace is allowed between and after the blocks. The thought is not blank. X is a letter A-J, alone or with
    a square bracket on either side or both. There is no other tag.

    Source: the format reward of JuncyLu/trl_DAPO, branch main. Departure: only `<` directly before a letter or a slash
    opens a tag, so that `3 < 4 > 2` contains none.
    """
    match = _STRICT.fullmatch(completion.text)
    return float(match is not None and bool(match["thought"].strip()) and len(_TAG.findall(completion.text)) == 4)

"""Rewards: pure functions of one prompt's group of completions.

`reward(completions, **options) -> list[float | None]`, one value per completion, None where it cannot be judged.
The key in `REWARDS`, the name in a study and the function's name are one and the same word.
"""

from rlassay.rewards.accuracy import choice_accuracy
from rlassay.rewards.form import think_answer_format
from rlassay.rewards.length import soft_overlong
from rlassay.rewards.lift import Reward
from rlassay.rewards.options import check_options

REWARDS: dict[str, Reward] = {
    "choice_accuracy": choice_accuracy,
    "think_answer_format": think_answer_format,
    "soft_overlong": soft_overlong,
}


def check_reward_options(name: str, options: dict[str, object]) -> None:
    """Raise ValueError unless `REWARDS[name]` exists and takes these options."""
    check_options(name, options, REWARDS)

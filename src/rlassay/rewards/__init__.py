"""Rewards: pure functions of one prompt's group of completions.

`reward(completions, **options) -> list[float | None]`, one value per completion, None where it cannot be judged.
The key in `REWARDS`, the name in a study and the function's name are one and the same word.
"""

from collections.abc import Callable, Mapping, Sequence

from rlassay.records import Completion
from rlassay.rewards.accuracy import action_set_iou, choice_accuracy, exact_match
from rlassay.rewards.custom import custom
from rlassay.rewards.form import strict_think_answer_format, think_answer_format, think_format
from rlassay.rewards.judge import judge
from rlassay.rewards.length import accuracy_conditioned_length, length_similarity, soft_overlong
from rlassay.rewards.mathematics import math_accuracy
from rlassay.rewards.modality import balance_figures, gain_figures, modality_balance, vision_gain
from rlassay.rewards.options import Reward, check_options, is_lifted, score_with
from rlassay.rewards.reward_model import reward_model
from rlassay.rewards.rouge import rouge_average, rouge_l

REWARDS: dict[str, Reward] = {
    "choice_accuracy": choice_accuracy,
    "exact_match": exact_match,
    "math_accuracy": math_accuracy,
    "action_set_iou": action_set_iou,
    "think_format": think_format,
    "think_answer_format": think_answer_format,
    "strict_think_answer_format": strict_think_answer_format,
    "modality_balance": modality_balance,
    "vision_gain": vision_gain,
    "soft_overlong": soft_overlong,
    "accuracy_conditioned_length": accuracy_conditioned_length,
    "length_similarity": length_similarity,
    "rouge_average": rouge_average,
    "rouge_l": rouge_l,
    "judge": judge,
    "reward_model": reward_model,
    "custom": custom,
}

READING_SIGNALS = frozenset({"modality_balance", "vision_gain", "custom"})
"""Rewards that go by what was measured of a completion, or may do so."""
IN_THEIR_OWN_PROCESS = frozenset({"judge", "reward_model"})
"""Rewards that ask a process of their own, and are therefore called in the job's; all others judge in its worker."""


MOSTLY_ZERO_VARIANCE = 0.8
"""A weighted reward that says the same of all completions in more than this share of the groups is warned of."""
FIGURES: dict[str, Callable[[Sequence[float], Mapping[str, object]], dict[str, float]]] = {
    "modality_balance": balance_figures,
    "vision_gain": gain_figures,
}
"""What else is logged of a reward: from its values in a batch and its options to figures by name."""


def is_per_sample(name: str, options: Mapping[str, object]) -> bool:
    """Whether `REWARDS[name]` judges each completion by itself, so that a failure on one costs no other."""
    return is_lifted(REWARDS[name]) or (name == "custom" and not options.get("batch", False))


def check_reward_options(name: str, options: dict[str, object]) -> None:
    """Raise ValueError unless `REWARDS[name]` exists and takes these options."""
    check_options(name, options, REWARDS)


def score_group(
    names_and_options: Mapping[str, Mapping[str, object]], completions: Sequence[Completion]
) -> dict[str, list[float | None]]:
    """Every named reward with its options on one prompt's completions: one value per completion, None = not judged.

    Raises:
        ValueError: an unknown reward, or one that gives another number of values; both are named.
    """
    return score_with(names_and_options, completions, REWARDS)

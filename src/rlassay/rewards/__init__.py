"""Rewards: pure functions that score the completions of one prompt.

`reward(completions, **options) -> list[float | None]` gives one value per completion, None where it cannot score it.
A reward's key in `REWARDS`, its name in a study and its function's name are the same.
"""

from collections.abc import Callable, Mapping, Sequence

from rlassay.rewards.accuracy import action_set_iou, choice_accuracy, exact_match
from rlassay.rewards.custom import custom, custom_scored
from rlassay.rewards.form import strict_think_answer_format, think_answer_format, think_format
from rlassay.rewards.judge import judge
from rlassay.rewards.length import accuracy_conditioned_length, length_similarity, soft_overlong
from rlassay.rewards.mathematics import math_accuracy
from rlassay.rewards.modality import modality_balance, neutral_share, saturated_share, vision_gain
from rlassay.rewards.outcomes import Scored
from rlassay.rewards.reward import Reward, check_options, is_separable
from rlassay.rewards.reward_model import reward_model
from rlassay.rewards.rouge import rouge_average, rouge_l, rouge_scored

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
"""Rewards that may read the signals of a completion."""
IN_THEIR_OWN_PROCESS = frozenset({"judge", "reward_model"})
"""Rewards with a model in a process of their own. The job calls them itself; its worker calls all others."""
MOSTLY_ZERO_VARIANCE = 0.8
"""Share of groups with zero variance above which a weighted reward causes a warning."""
WITH_METRICS: dict[str, Callable[..., Sequence[float | Scored | None]]] = {
    "custom": custom_scored,
    "rouge_average": rouge_scored,
}
"""Reward -> the same function with metrics beside each value."""
EXTRA_METRICS: dict[str, Callable[[Sequence[float], Mapping[str, object]], dict[str, float]]] = {
    "modality_balance": saturated_share,
    "vision_gain": neutral_share,
}
"""Reward -> function from its values in a batch and its options to further metrics."""


def is_per_sample(name: str, options: Mapping[str, object]) -> bool:
    """Whether `REWARDS[name]` scores each completion by itself, so that a failure affects only that one."""
    return is_separable(REWARDS[name]) or (name == "custom" and not options.get("batch", False))


def check_reward_options(name: str, options: Mapping[str, object]) -> None:
    """Raise ValueError unless `REWARDS[name]` exists and accepts these options."""
    check_options(name, options, REWARDS)

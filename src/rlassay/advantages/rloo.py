"""RLOO: the reward relative to the mean of the other completions of the prompt."""

from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import in_groups, mean_of_others, zero_if_unscored


def rloo(rewards: Float[Tensor, "batch"], num_generations: int) -> Float[Tensor, "batch"]:
    """Reward minus the mean of the prompt's other completions.

    For n completions it is `n / (n - 1) * (r - mean)`.

    Args:
        rewards: (B,), total reward of each completion; NaN = could not be scored: its advantage is 0, and the other
            completions' means leave it out. The only scored completion of a prompt gets 0.
        num_generations: completions per prompt; those of a prompt are neighbours.

    Source: Back to Basics (arXiv 2402.14740), section 3.2, the RLOO estimator. Implementations that leave the only
    completion of a prompt its whole reward differ.
    """
    grouped = in_groups(rewards, num_generations)
    return zero_if_unscored(grouped - mean_of_others(grouped)).view_as(rewards)

"""ReMax: the reward relative to that of the greedy completion of the same prompt."""

from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import zero_if_unscored


def remax(rewards: Float[Tensor, "batch"], greedy_rewards: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """Reward minus the reward of the prompt's greedy completion.

    The baseline does not depend on the sampled completions, so that the gradient is unbiased with one of them.

    Args:
        rewards: (B,), total reward of each completion; NaN = could not be scored.
        greedy_rewards: (B,), total reward of the greedy (temperature 0) completion of the same prompt; NaN = could not
            be scored.

    The advantage is 0 where either reward is NaN: without a baseline a reward says nothing.

    Errors: ValueError for one greedy reward per prompt in place of one per completion.

    Source: ReMax (arXiv 2310.10505), equation 5.
    """
    if rewards.shape != greedy_rewards.shape:
        got, expected = tuple(greedy_rewards.shape), tuple(rewards.shape)
        raise ValueError(f"greedy_rewards: got shape {got}, expected {expected}, one per completion, not per prompt")
    return zero_if_unscored(rewards - greedy_rewards)

"""Generalised advantage estimation: advantages per token, from a critic's values."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


def gae(
    rewards_BT: Float[Tensor, "batch time"],
    values_BT: Float[Tensor, "batch time"],
    completion_mask: Shaped[Tensor, "batch time"],
    gamma: int | float,
    lam: int | float,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """Advantages and returns of each token.

    With `d_t = r_t + gamma V_{t+1} - V_t` and V = 0 after the last token, the advantage is
    `A_t = d_t + gamma lam A_{t+1}`, and the return `A_t + V_t` is the critic's target. `lam` of 1 gives the discounted
    reward to come minus the value, `lam` of 0 gives `d_t`.

    Args:
        rewards_BT: (B, T), reward of each token, see `terminal_rewards`.
        values_BT: (B, T), the critic's value before each token.
        completion_mask: (B, T), 1 or True on the tokens that the loss counts. Tokens in between that it does not count,
            such as results of tools, are passed over: the next counted token follows.
        gamma: discount per token, 0 to 1.
        lam: weight of later estimates, 0 to 1.

    Both results are 0 outside the mask, and at least float32: sums over a long completion lose digits in bfloat16.

    Source: GAE (arXiv 1506.02438), equations 11 and 16; the mask as in verl.
    """
    dtype = torch.promote_types(torch.promote_types(rewards_BT.dtype, values_BT.dtype), torch.float32)
    rewards_BT, values_BT, counted_BT = rewards_BT.to(dtype), values_BT.to(dtype), completion_mask.bool()
    advantages_BT = torch.zeros_like(values_BT)
    next_value = advantage = values_BT.new_zeros(len(values_BT))
    for time in reversed(range(values_BT.shape[1])):
        error = rewards_BT[:, time] + gamma * next_value - values_BT[:, time]
        advantage = torch.where(counted_BT[:, time], error + gamma * lam * advantage, advantage)
        next_value = torch.where(counted_BT[:, time], values_BT[:, time], next_value)
        advantages_BT[:, time] = advantage
    advantages_BT = torch.where(counted_BT, advantages_BT, 0.0)
    return advantages_BT, torch.where(counted_BT, advantages_BT + values_BT, 0.0)


def terminal_rewards(
    rewards: Float[Tensor, "batch"], completion_mask: Shaped[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Each completion's reward on its last token under the mask, 0 elsewhere and for NaN."""
    reversed_count = completion_mask.flip(1).cumsum(dim=1).flip(1)
    is_last = completion_mask.bool() & (reversed_count == 1)
    return torch.where(is_last, torch.nan_to_num(rewards, nan=0.0)[:, None], 0.0)


def value_errors(
    values_BT: Float[Tensor, "batch time"],
    old_values_BT: Float[Tensor, "batch time"],
    returns_BT: Float[Tensor, "batch time"],
    clip: float,
) -> Float[Tensor, "batch time"]:
    """The clipped loss of the critic for each token.

    It is `max((V - R)^2, (V' - R)^2) / 2`, with V' held within `clip` of the old value. A value that has moved further
    than `clip` towards its return gives no gradient.

    Source: the value loss of PPO (openai/baselines `ppo2`), as in TRL's former PPO trainer and verl.
    """
    clipped_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
    return torch.maximum((values_BT - returns_BT) ** 2, (clipped_BT - returns_BT) ** 2) / 2


def explained_variance(
    values_BT: Float[Tensor, "batch time"],
    returns_BT: Float[Tensor, "batch time"],
    counted_BT: Bool[Tensor, "batch time"],
) -> float:
    """Share of the returns' variance that the values explain, over the counted tokens.

    `1 - var(R - V) / var(R)`: 1 = the values predict all, 0 = no better than a constant. NaN where the returns do not
    vary, or for fewer than two tokens.
    """
    returns, errors = returns_BT[counted_BT], (returns_BT - values_BT)[counted_BT]
    if len(returns) < 2 or bool(returns.max() == returns.min()):
        return torch.nan
    return 1 - (errors.var() / returns.var()).item()

"""Pass@k training: all members of a set of k completions share its best reward."""

from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import EPSILON, in_groups


def pass_at_k(rewards: Float[Tensor, "batch"], num_generations: int, k: int = 2) -> Float[Tensor, "batch"]:
    """GRPO's advantages of sets of `k` completions, averaged for each completion.

    The reward of a set is its best one. For each completion the mean reward of all sets of `k` that contain it, minus
    the mean over all sets, divided by the deviation over all sets. With rewards of 0 and 1, and w wrong of n, the mean
    over all sets is `R = 1 - C(w, k) / C(n, k)`; a right completion gets `(1 - R) / s`, a wrong one `(1 - R - C(w - 1,
    k - 1) / C(n - 1, k - 1)) / s`, with `s = sqrt(R (1 - R)) + 1e-4`. `k` of 1 is GRPO.

    Args:
        rewards: (B,), total reward of each completion; NaN = could not be scored: its advantage is 0, and it is in no
            set. A group with fewer than `k` scored completions, or one whose sets are all worth the same, gets 0.
        num_generations: completions per prompt; those of a prompt are neighbours.
        k: completions of a set, 1 to `num_generations`, else ValueError; with all of them there is one set, and all
            advantages are 0.

    Source: Pass@k Training (arXiv 2508.10751), section 2.4, equations 14 and 15. The same average over sets is taken
    here for rewards of any value, through their order; the 1e-4 is TRL's.
    """
    if not 1 <= k <= num_generations:
        raise ValueError(f"advantage pass_at_k: got k = {k}, expected 1 to num_generations, {num_generations}")
    advantages = torch.zeros_like(rewards)
    for group, result in zip(in_groups(rewards, num_generations), in_groups(advantages, num_generations), strict=True):
        scored = torch.nonzero(~torch.isnan(group))[:, 0]
        if len(scored) >= k:
            result[scored] = _of_group(group[scored], k)
    return advantages


def _of_group(rewards: Float[Tensor, "scored"], k: int) -> Float[Tensor, "scored"]:
    count = len(rewards)
    ascending, order = torch.sort(rewards)
    best = rewards.new_tensor([comb(index, k - 1) / comb(count, k) for index in range(count)])
    if ascending[k - 1] == ascending[-1]:  # the lowest best of a set is the highest: rounding must not tell them apart
        return torch.zeros_like(rewards)
    mean = best @ ascending
    deviation = (best @ (ascending - mean) ** 2).sqrt()
    # Sets that contain a completion are worth its reward, or that of a better completion which they contain too.
    own = rewards.new_tensor([comb(index, k - 1) / comb(count - 1, k - 1) for index in range(count)])
    other = rewards.new_tensor([comb(index - 1, k - 2) if min(index, k - 1) else 0 for index in range(count)])
    better = ascending * other / comb(count - 1, k - 1)
    with_it = own * ascending + better.flip(0).cumsum(0).flip(0) - better
    return torch.empty_like(rewards).scatter_(0, order, (with_it - mean) / (deviation + EPSILON))

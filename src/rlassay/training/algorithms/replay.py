"""The replay buffer: stores groups whose rewards vary, to replace groups whose rewards do not."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import nanstd
from rlassay.training.algorithms.groups import SampledGroup


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Which groups enter the replay buffer, and how many it holds.

    A group enters if the standard deviation of its total rewards exceeds `min_std` and their mean exceeds `min_mean`,
    both strictly. Every other group of the batch is replaced by a group drawn from the buffer, unless the buffer is
    empty. This is replay of earlier completions, not DAPO's sampling of new ones.

    Source: `replay_buffer_size`, `replay_var_epsilon` (which is compared with the deviation) and `filter_min_reward` of
    JuncyLu/trl_DAPO. Departs from it: a replayed completion keeps its own prompt, images, rewards and advantage, and
    its log-probabilities are computed again; there it is scored against the image of another prompt.
    """

    size: int = 64
    """Most groups that the buffer holds; the one with the lowest score leaves first."""
    min_std: float = 1e-6
    """Smallest standard deviation (divisor G - 1), itself excluded."""
    min_mean: float | None = None
    """Smallest mean total reward, itself excluded; None sets no bound."""

    def __post_init__(self) -> None:
        """Raise ValueError for an option out of range."""
        if self.size < 1:
            raise ValueError(f"replay.size: got {self.size}, expected at least 1 group")
        if self.min_std < 0:
            raise ValueError(f"replay.min_std: got {self.min_std}, expected at least 0")


def replay_score(totals_G: Float[Tensor, "size"], advantages_G: Float[Tensor, "size"]) -> float:
    """`sum |A| * std` of a group, with divisor G - 1; the buffer sorts and draws by it."""
    return float(advantages_G.abs().sum() * nanstd(totals_G, dim=0))


def admits(options: Replay, totals_G: Float[Tensor, "size"]) -> bool:
    """Whether a group enters the buffer; not one in which fewer than two completions were scored."""
    std, mean = float(nanstd(totals_G, dim=0)), float(torch.nanmean(totals_G))
    return std > options.min_std and (options.min_mean is None or mean > options.min_mean)  # NaN compares false


def draw(scores: list[float], count: int, rng: np.random.Generator) -> list[int]:
    """Indices of `count` draws, each with probability proportional to its score.

    Without replacement, unless more are needed than there are groups with a positive score. If all scores are 0, every
    index is as likely.
    """
    weights = np.asarray(scores, dtype=float)
    weights = weights if weights.sum() > 0 else np.ones_like(weights)
    again = count > int((weights > 0).sum())
    return rng.choice(len(weights), size=count, replace=again, p=weights / weights.sum()).tolist()


class ReplayBuffer:
    """The groups with the highest scores so far, the same on every process."""

    def __init__(self, options: Replay, seed: int) -> None:
        """
        Args:
            options: which groups enter.
            seed: the run's seed.
        """
        self.options = options
        self.seed = seed
        self.entries: list[tuple[float, SampledGroup]] = []
        """Score and group, in the order in which they came."""
        self.draws = 0
        """Draws that were made. A step may have several generation batches, each with random numbers of its own."""

    def push(self, group: SampledGroup, totals_G: Float[Tensor, "size"], advantages_G: Float[Tensor, "size"]) -> None:
        """Add a group; a full buffer drops the lowest score (of equals the oldest), if the new one is higher."""
        score = replay_score(totals_G, advantages_G)
        if len(self.entries) >= self.options.size:
            lowest = min(range(len(self.entries)), key=lambda index: self.entries[index][0])
            if score <= self.entries[lowest][0]:
                return
            del self.entries[lowest]
        self.entries.append((score, replace(group, advantages_G=advantages_G.clone())))

    def replacements(self, count: int) -> list[SampledGroup]:
        """Groups for `count` places; none from an empty buffer."""
        if not self.entries or not count:
            return []
        self.draws += 1
        rng = np.random.default_rng((self.seed, 2, self.draws))
        return [self.entries[index][1] for index in draw([score for score, _ in self.entries], count, rng)]

    def state(self) -> dict[str, Any]:
        """The state for `restore`."""
        return {"entries": list(self.entries), "draws": self.draws}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with the groups and random numbers of another buffer of the same seed."""
        self.entries, self.draws = list(state["entries"]), state["draws"]

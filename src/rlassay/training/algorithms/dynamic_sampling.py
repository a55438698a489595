"""Dynamic sampling: groups that teach nothing are replaced until the batch is full.

Groups of other prompts replace them.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlassay.advantages import in_groups
from rlassay.training.algorithms.groups import SampledGroup
from rlassay.training.batch import prompt_key
from rlassay.training.reward_metrics import zero_advantage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Options: which groups are kept, and how often other prompts are sampled as replacements.

    A group is kept if its total rewards vary, and, with `filter_reward`, if the mean of that reward over the group
    lies strictly between `filter_low` and `filter_high`. After `max_resample` rounds the free places are filled with
    groups that were not kept, in the order in which they were sampled: a batch never shrinks. Those without variance
    have advantages of 0, as in plain GRPO. `dynamic_sampling/unfilled_groups` counts them.

    Source: DAPO (arXiv 2503.14476, section 3.2, 0 < number of right answers < G); the bounds are the online filter of
    VPPO's code (arXiv 2510.09285), which reads means of rewards, strictly; `revisit` is GRESO (arXiv 2506.02177).
    """

    filter_reward: str | None = None
    """Name of the reward whose group mean is bounded; None keeps every group with variance."""
    filter_low: float = 0.01
    """Smallest mean, itself excluded."""
    filter_high: float = 0.99
    """Largest mean, itself excluded."""
    max_resample: int = 8
    """Largest number of rounds of other prompts per generation batch."""
    revisit: float = 1.0
    """Probability of sampling a prompt again after its last group was not kept; after k in a row, this to the power of
    k. 1 always does, as in DAPO."""

    def __post_init__(self) -> None:
        """Raise ValueError for an option out of range."""
        if self.max_resample < 1:
            raise ValueError(f"dynamic_sampling.max_resample: got {self.max_resample}, expected at least 1")
        if not 0 < self.revisit <= 1:
            raise ValueError(f"dynamic_sampling.revisit: got {self.revisit}, expected a probability above 0")
        if not self.filter_low < self.filter_high:
            raise ValueError(
                f"dynamic_sampling.filter_low: got {self.filter_low}, expected less than filter_high {self.filter_high}"
            )


def worth_training(
    totals: Float[Tensor, "batch"],
    num_generations: int,
    filtered: Float[Tensor, "batch"] | None = None,
    bounds: tuple[float, float] = (0.01, 0.99),
) -> Bool[Tensor, "groups"]:
    """Groups whose total rewards vary, and whose mean filter reward is between the bounds.

    The bounds themselves are excluded.

    Args:
        totals: (B,), total reward of each completion; NaN = could not be scored, and is left out.
        num_generations: completions per prompt; those of a prompt are neighbours.
        filtered: (B,), the filter reward; NaN as in `totals`; None applies no bounds.
        bounds: smallest and largest mean, both excluded.

    A group in which the filter reward scored nothing is not kept.
    """
    kept = ~zero_advantage(totals, num_generations)
    if filtered is not None:
        means = torch.nanmean(in_groups(filtered, num_generations), dim=1)
        kept = kept & (means > bounds[0]) & (means < bounds[1])  # NaN compares false
    return kept


class PromptStream:
    """Replacement prompts: the data set in a new random order at each pass.

    The order is the same on every process.
    """

    def __init__(self, dataset: Any, seed: int, revisit: float) -> None:
        """
        Args:
            dataset: with a length and rows by index.
            seed: the run's seed.
            revisit: see `DynamicSampling`.
        """
        self.dataset = dataset
        self.seed = seed
        self.revisit = revisit
        self.position = 0
        """Rows that were drawn or skipped."""
        self.draws = 0
        """Number of random decisions about revisiting."""
        self.rejections: dict[str, int] = {}
        """Prompt -> groups in a row that were not kept. It has the prompts whose last group was not kept."""
        self._pass: int = -1
        self._order: list[int] = []

    def state(self) -> dict[str, Any]:
        """The state for `restore`."""
        return {"position": self.position, "draws": self.draws, "rejections": dict(self.rejections)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another stream of the same data set and seed stopped."""
        self.position, self.draws, self.rejections = state["position"], state["draws"], dict(state["rejections"])

    def record(self, prompt_id: str, *, kept: bool) -> None:
        """Remember whether a prompt's group was kept."""
        if kept:
            self.rejections.pop(prompt_id, None)
        else:
            self.rejections[prompt_id] = self.rejections.get(prompt_id, 0) + 1

    def accepts(self, prompt_id: str) -> bool:
        """Whether to sample a prompt, by chance if its last group was not kept."""
        chance = self.revisit ** self.rejections.get(prompt_id, 0)
        if chance == 1:
            return True
        self.draws += 1
        return bool(np.random.default_rng((self.seed, 1, self.draws)).random() < chance)

    def take(self, count: int, taken: set[str]) -> list[dict[str, Any]]:
        """The next `count` rows of prompts not in `taken`, to which they are added.

        If a whole pass has no such prompt, `taken` and `revisit` are ignored.
        """
        rows: list[dict[str, Any]] = []
        for _ in range(count):
            row = self._next()
            for _ in range(len(self.dataset)):
                if prompt_key(row) not in taken and self.accepts(prompt_key(row)):
                    break
                row = self._next()
            taken.add(prompt_key(row))
            rows.append(row)
        return rows

    def _next(self) -> dict[str, Any]:
        number, place = divmod(self.position, len(self.dataset))
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng((self.seed, 0, number)).permutation(len(self.dataset)).tolist()
        self.position += 1
        return dict(self.dataset[self._order[place]])


@dataclass(kw_only=True)
class Filled:
    """The result of `fill`."""

    groups: list[SampledGroup]
    """As many as in the first round: kept ones, then those that fill free places."""
    dropped: list[SampledGroup]
    """The other groups that were sampled."""
    rounds: int
    """Rounds of sampling, the first included."""
    unfilled: int
    """Groups that were not kept but fill free places."""


def fill(
    first: Sequence[SampledGroup],
    keep: Callable[[Sequence[SampledGroup]], Sequence[bool]],
    resample: Callable[[int], Sequence[SampledGroup]],
    max_resample: int,
) -> Filled:
    """Sample more groups until as many are kept as were sampled first.

    Args:
        first: the groups of the first round.
        keep: which of some groups to keep.
        resample: samples at least so many groups of other prompts.
        max_resample: largest number of further rounds.
    """
    wanted, rounds = len(first), 0
    kept: list[SampledGroup] = []
    rejected: list[SampledGroup] = []
    sampled = first
    while True:
        rounds += 1
        for group, good in zip(sampled, keep(sampled), strict=True):
            (kept if good else rejected).append(group)
        if len(kept) >= wanted or rounds > max_resample:
            break
        sampled = resample(wanted - len(kept))
    missing = max(0, wanted - len(kept))
    return Filled(
        groups=[*kept[:wanted], *rejected[:missing]],
        dropped=[*kept[wanted:], *rejected[missing:]],
        rounds=rounds,
        unfilled=missing,
    )

"""Groups of completions as objects that move between batches, processes and the replay buffer.

Dynamic sampling and replay choose whole groups before TRL processes the batch. TRL itself then pads, masks, scores and
counts the chosen completions with their images, so that nothing has to be spliced into its tensors.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from rlassay.rewards.outcomes import FailureKind


@dataclass(frozen=True, kw_only=True)
class SampledGroup:
    """The G completions of one prompt, scored by R rewards; tensors are on the CPU."""

    row: dict[str, Any]
    """Dataset row of the prompt, with its images."""
    prompt_id: str
    """The prompt's key."""
    prompt_tokens: list[list[int]]
    """(G), token ids of the prompt."""
    completions: list[Any]
    """(G), decoded, in TRL's plain or conversational format."""
    completion_ids: list[list[int]]
    """(G), token ids."""
    sampling_logps: list[list[float]] | None
    """(G), log-probabilities under the engine that sampled; None from transformers."""
    raw: Float[Tensor, "size rewards"]
    """(G, R), values as the rewards returned them; NaN = could not score."""
    rewards_per_func: Float[Tensor, "size rewards"]
    """(G, R), the same with the NaN of our own rewards imputed."""
    failed: dict[str, list[FailureKind | None]]
    """For each of our rewards, why it failed on each completion."""
    metrics: dict[str, list[dict[str, float]]]
    """For each of our rewards, its further metrics of each completion, by name."""
    advantages_G: Float[Tensor, "size"] | None = None
    """(G,), advantages in the batch for which the group was sampled; None until it enters the replay buffer."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all completions."""
        return sum(len(ids) for ids in self.completion_ids)


@dataclass(kw_only=True)
class ChosenGroups:
    """The groups of one generation batch over all processes, trained and dropped; N / G groups train."""

    groups: list[SampledGroup]
    """(N / G), the groups to train on, those of process 0 first."""
    replayed: list[bool]
    """(N / G), whether each comes from the replay buffer."""
    own: slice
    """The groups of this process."""
    dropped: list[SampledGroup]
    """Sampled groups that are not trained on."""
    names: list[str]
    """(R), names of the rewards."""
    weights: Float[Tensor, "rewards"]
    """(R,), their weights at this step."""
    metrics: dict[str, float]
    """Values to log."""

"""The adapter between our rewards and TRL: one prompt's group at a time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlassay.records import Completion, PromptRow
from rlassay.rewards.outcomes import FAILURE_KINDS, Failure, FailureKind
from rlassay.rewards.sandbox.guard import GuardedReward
from rlassay.training.whole_batch import completion_text

TRLCompletion = str | list[dict[str, Any]]


class GroupReward:
    """One of our rewards in the signature that `trl.GRPOTrainer` calls.

    TRL hands over a whole batch; the reward sees one prompt's completions at a time. None, "cannot be judged", is
    passed on as None, and so is a failure: `CreditGRPOTrainer` stands in the group's mean for it, plain TRL counts it
    as 0.
    """

    def __init__(
        self,
        reward: GuardedReward,
        *,
        rows: Mapping[str, PromptRow],
        num_generations: int,
        end_token_ids: Sequence[int],
    ) -> None:
        """
        Args:
            reward: the reward; its name is the column in logs and files.
            rows: every prompt of the dataset by `prompt_id`, which is a column of the dataset.
            num_generations: completions per prompt.
            end_token_ids: ids that end a completion; one that ends otherwise was truncated.
        """
        self.__name__ = reward.name  # TRL names the column by it
        self.reward = reward
        self.rows = rows
        self.num_generations = num_generations
        self.end_token_ids = frozenset(end_token_ids)
        self.signals: Mapping[str, Sequence[float]] = {}
        """Measurements of the batch to come, by name, one per completion; NaN = not measured."""
        self.failed: list[FailureKind | None] = []
        """Of the last batch, how judging each completion failed; None where it did not."""

    def __call__(
        self,
        completions: list[TRLCompletion],
        completion_ids: list[list[int]],
        prompt_id: list[str],
        **columns: Any,
    ) -> list[float | None]:
        """Values of a batch whose groups are neighbours.

        Errors: ValueError when the batch is not made of whole groups; what `GuardedReward` raises.
        """
        size = self.num_generations
        if len(completions) % size:
            raise ValueError(
                f"reward {self.__name__}: got {len(completions)} completions, expected whole groups of {size}"
            )
        values: list[float | None] = []
        self.failed = []
        for start in range(0, len(completions), size):
            places = range(start, start + size)
            if len({prompt_id[place] for place in places}) != 1:
                raise ValueError(
                    f"reward {self.__name__}: completions {start} to {start + size - 1} mix several prompts"
                )
            row = self.rows[prompt_id[start]]
            group = [self._completion(completions[place], completion_ids[place], row, place) for place in places]
            for outcome in self.reward.outcomes(group):
                failure = outcome if isinstance(outcome, Failure) else None
                self.failed.append(failure and failure.kind)
                values.append(None if isinstance(outcome, Failure) else outcome)
        return values

    def _completion(self, sampled: TRLCompletion, ids: list[int], row: PromptRow, place: int) -> Completion:
        measured = {name: values[place] for name, values in self.signals.items()}
        return Completion(
            text=completion_text(sampled),
            token_count=len(ids),
            finished=ids[-1] in self.end_token_ids,
            row=row,
            signals={name: value for name, value in measured.items() if not math.isnan(value)},
        )


def failure_counts(failed: Sequence[FailureKind | None]) -> dict[str, int]:
    """`failed/<kind>` -> how many completions failed that way; without the kinds that did not happen."""
    return {f"failed/{kind}": failed.count(kind) for kind in FAILURE_KINDS if kind in failed}

"""The adapter between our rewards and TRL: one prompt's group at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlassay.records import Completion, PromptRow
from rlassay.rewards.outcomes import FAILURE_KINDS, Failure, FailureKind, Scored, value_of
from rlassay.rewards.sandbox.guard import GuardedReward
from rlassay.training.batch import TRLCompletion, completion_text

SIGNALS_COLUMN = "completion_signals"
"""Column that the trainer adds to the rows; TRL passes it to reward functions under this name."""


class GroupReward:
    """One of our rewards in the signature that `trl.GRPOTrainer` calls.

    TRL passes a whole batch; the reward sees one prompt's completions at a time. None, "could not score", is passed on
    as None, and so is a failure: `CreditGRPOTrainer` imputes the mean of the group, plain TRL counts 0.
    """

    def __init__(
        self,
        reward: GuardedReward,
        *,
        rows: Mapping[str, PromptRow],
        num_generations: int,
        end_token_ids: Sequence[int],
        prefilled: str = "",
    ) -> None:
        """
        Args:
            reward: the reward; its name is the column in logs and files.
            rows: every prompt of the dataset by `prompt_id`, which is a column of the dataset.
            num_generations: completions per prompt.
            end_token_ids: ids that end a completion; a completion with another last id was truncated.
            prefilled: text that the chat template writes at the beginning of each completion; the reward sees it too.
        """
        self.__name__ = reward.name  # TRL logs it under this name
        self.reward = reward
        self.rows = rows
        self.num_generations = num_generations
        self.end_token_ids = frozenset(end_token_ids)
        self.prefilled = prefilled
        self.failed: list[FailureKind | None] = []
        """Why it failed on each completion of the last batch; None where it did not."""
        self.metrics: list[dict[str, float]] = []
        """What it returned beside the value of each completion of the last batch, by name."""

    def __call__(
        self,
        completions: list[TRLCompletion],
        completion_ids: list[list[int]],
        prompt_id: list[str],
        completion_signals: list[dict[str, float]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards of a batch in which the completions of a prompt are neighbours.

        Args:
            completions: texts, or conversations of one assistant turn.
            completion_ids: token ids of each.
            prompt_id: the prompt of each.
            completion_signals: signals of each by name; None where none were measured.
            columns: other columns of the dataset and other arguments of TRL; ignored.

        Errors: ValueError when the batch is not made of whole groups; the errors of `GuardedReward`.
        """
        size = self.num_generations
        if len(completions) % size:
            raise ValueError(
                f"reward {self.__name__}: got {len(completions)} completions, expected whole groups of {size}"
            )
        signals = completion_signals or [{} for _ in completions]
        values: list[float | None] = []
        self.failed, self.metrics = [], []
        for start in range(0, len(completions), size):
            members = range(start, start + size)
            if len({prompt_id[index] for index in members}) != 1:
                raise ValueError(
                    f"reward {self.__name__}: completions {start} to {start + size - 1} belong to several prompts"
                )
            row = self.rows[prompt_id[start]]
            group = [
                self._completion(completions[index], completion_ids[index], row, signals[index]) for index in members
            ]
            for outcome in self.reward.outcomes(group):
                failure = outcome if isinstance(outcome, Failure) else None
                self.failed.append(failure and failure.kind)
                self.metrics.append(dict(outcome.metrics) if isinstance(outcome, Scored) else {})
                values.append(value_of(outcome))
        return values

    def _completion(
        self, completion: TRLCompletion, ids: list[int], row: PromptRow, signals: dict[str, float]
    ) -> Completion:
        return Completion(
            text=self.prefilled + completion_text(completion),
            token_count=len(ids),
            finished=ids[-1] in self.end_token_ids,
            row=row,
            signals=signals,
        )


def mean_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`metrics/<name>` -> mean over the completions that have it."""
    names = dict.fromkeys(name for each in metrics for name in each)
    having = {name: [each[name] for each in metrics if name in each] for name in names}
    return {f"metrics/{name}": sum(values) / len(values) for name, values in having.items()}


def failure_counts(failed: Sequence[FailureKind | None]) -> dict[str, int]:
    """`failed/<kind>` -> number of completions that failed that way; kinds that did not occur are left out."""
    return {f"failed/{kind}": failed.count(kind) for kind in FAILURE_KINDS if kind in failed}

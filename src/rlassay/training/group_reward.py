"""Adapter from our rewards to TRL's reward functions: one prompt's group at a time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from rlassay.ranks import PROGRESS
from rlassay.records import Completion, PromptRow
from rlassay.rewards import REWARDS, check_reward_options
from rlassay.rewards.outcomes import FAILURE_KINDS, Failure, FailureKind, Scored, value_of
from rlassay.rewards.reward import Reward
from rlassay.rewards.sandbox.guard import GuardedReward, guarded
from rlassay.training.batch import TRLCompletion, completion_text, prompt_key, turn_text

SIGNALS_COLUMN = "completion_signals"
"""Column that the trainer adds to the rows; TRL passes it to reward functions under this name."""

ANSWER_COLUMNS = ("answer", "solution", "ground_truth")
"""Columns of a TRL dataset with the gold answer; the first that exists is used."""
ROW_COLUMNS = (*ANSWER_COLUMNS, "choices", "prompt_id")
"""Columns from which the row of a prompt is made."""


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
        """Kind of failure on each completion of the last batch; None where it did not fail."""
        self.metrics: list[dict[str, float]] = []
        """Its further metrics of each completion of the last batch, by name."""

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
            values += self._values(group)
        return values

    def _values(self, group: list[Completion]) -> list[float | None]:
        """Values of one group; adds to `failed` and `metrics`."""
        with PROGRESS.patient():  # rewards have time limits of their own
            outcomes = self.reward.outcomes(group)
        self.failed.extend(outcome.kind if isinstance(outcome, Failure) else None for outcome in outcomes)
        self.metrics += [dict(outcome.metrics) if isinstance(outcome, Scored) else {} for outcome in outcomes]
        return [value_of(outcome) for outcome in outcomes]

    def _finished(self, ids: list[int]) -> bool:
        return ids[-1] in self.end_token_ids

    def _completion(
        self, completion: TRLCompletion, ids: list[int], row: PromptRow, signals: dict[str, float]
    ) -> Completion:
        return Completion(
            text=self.prefilled + completion_text(completion),
            token_count=len(ids),
            finished=self._finished(ids),
            row=row,
            signals=signals,
        )


class ColumnReward(GroupReward):
    """One of `REWARDS` on any dataset of TRL's.

    Each prompt's row is made from the dataset's columns. The gold answer is the first of `ANSWER_COLUMNS` that exists;
    the options of a multiple-choice question are the column `choices`. Neighbours with the same prompt are a group.
    """

    def __init__(self, reward: GuardedReward) -> None:
        super().__init__(reward, rows={}, num_generations=0, end_token_ids=())

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # TRL passes all by keyword
        self,
        prompts: list[Any],
        completions: list[TRLCompletion],
        completion_ids: list[list[int]],
        completion_signals: list[dict[str, float]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards of a batch, see `GroupReward`; `num_generations` of 0 leaves the size of a group open."""
        signals = completion_signals or [{} for _ in completions]
        size = len(completions)
        per_row: dict[str, list[Any]] = {
            name: values for name, values in columns.items() if isinstance(values, list) and name in ROW_COLUMNS
        }
        rows = [
            _row(prompt, {name: values[index] for name, values in per_row.items()})
            for index, prompt in enumerate(prompts)
        ]
        values: list[float | None] = []
        self.failed, self.metrics = [], []
        group: list[Completion] = []
        for index, row in enumerate(rows):
            group.append(self._completion(completions[index], completion_ids[index], row, signals[index]))
            goes_on = index + 1 < size and rows[index + 1] == row
            if not goes_on or len(group) == self.num_generations:
                values += self._values(group)
                group = []
        return values

    def _finished(self, ids: list[int]) -> bool:
        return super()._finished(ids) or not self.end_token_ids  # plain TRL passes no end tokens


def trl_reward(
    reward: str | Reward, *, timeout: float = 10.0, max_failures: float = 0.1, **options: object
) -> ColumnReward:
    """One of `rlassay.rewards.REWARDS` as a reward function of TRL's, `f(prompts, completions, ..., **columns)`.

        CreditGRPOTrainer(..., reward_funcs=[trl_reward("choice_accuracy"), trl_reward("soft_overlong", limit=512)])

    `CreditGRPOTrainer` does this by itself for members of `REWARDS` without options.

    Args:
        reward: a name of `REWARDS` or one of its functions.
        timeout: seconds for each completion.
        max_failures: the share of completions on which it may fail before the run stops.
        options: the reward's options.

    Errors: ValueError for an unknown reward or option.
    """
    name = reward if isinstance(reward, str) else _registered_name(reward)
    if name is None:
        raise ValueError(f"reward: got {reward!r}, expected a member of REWARDS or its name: {', '.join(REWARDS)}")
    check_reward_options(name, options)
    return ColumnReward(guarded(name, options, timeout=timeout, max_failures=max_failures))


def trl_rewards(reward_funcs: Any) -> Any:
    """TRL's argument `reward_funcs` with each member of `REWARDS` adapted, see `trl_reward`."""
    if isinstance(reward_funcs, list):
        return [trl_rewards(each) for each in cast("list[Any]", reward_funcs)]
    return reward_funcs if _registered_name(reward_funcs) is None else trl_reward(reward_funcs)


def _registered_name(reward: object) -> str | None:
    return next((name for name, known in REWARDS.items() if known is reward), None)


def _row(prompt: Any, columns: Mapping[str, Any]) -> PromptRow:
    answer = next((columns[name] for name in ANSWER_COLUMNS if name in columns), "")
    return PromptRow(
        prompt_id=prompt_key({**columns, "prompt": prompt}),
        question=prompt if isinstance(prompt, str) else turn_text(prompt[-1].get("content")),
        answer="" if answer is None else str(answer),
        choices=tuple(str(each) for each in columns.get("choices") or ()),
    )


def mean_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`metrics/<name>` -> mean over the completions that have it."""
    names = dict.fromkeys(name for each in metrics for name in each)
    having = {name: [each[name] for each in metrics if name in each] for name in names}
    return {f"metrics/{name}": sum(values) / len(values) for name, values in having.items()}


def failure_counts(failed: Sequence[FailureKind | None]) -> dict[str, int]:
    """`failed/<kind>` -> number of completions that failed that way; kinds that did not occur are left out."""
    return {f"failed/{kind}": failed.count(kind) for kind in FAILURE_KINDS if kind in failed}


def connect_rewards(rewards: Iterable[Any], num_generations: int, end_token_ids: Iterable[int]) -> None:
    """Set group size and end tokens of every `ColumnReward`, which plain TRL does not give."""
    for reward in rewards:
        if isinstance(reward, ColumnReward):
            reward.num_generations = num_generations
            reward.end_token_ids = frozenset(end_token_ids)

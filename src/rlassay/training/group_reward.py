"""The adapter between our rewards and TRL: one prompt's group at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from rlassay.records import Completion, PromptRow
from rlassay.training.batch_rows import completion_text

TRLCompletion = str | list[dict[str, Any]]
Reward = Callable[..., Sequence[float | None]]


class GroupReward:
    """One of our rewards in the signature that `trl.GRPOTrainer` calls.

    TRL hands over a whole batch; the reward sees one prompt's completions at a time. None, "cannot be judged", is
    passed on as None: `CreditGRPOTrainer` stands in the group's mean for it, plain TRL counts it as 0.
    """

    def __init__(
        self,
        name: str,
        reward: Reward,
        options: Mapping[str, Any],
        *,
        rows: Mapping[str, PromptRow],
        num_generations: int,
        end_token_ids: Sequence[int],
    ) -> None:
        """
        Args:
            name: its column in logs and files.
            reward: `f(completions, **options) -> list of float or None`.
            options: keyword options of `reward`.
            rows: every prompt of the dataset by `prompt_id`, which is a column of the dataset.
            num_generations: completions per prompt.
            end_token_ids: ids that end a completion; one that ends otherwise was truncated.
        """
        self.__name__ = name  # TRL names the column by it
        self.reward = reward
        self.options = options
        self.rows = rows
        self.num_generations = num_generations
        self.end_token_ids = frozenset(end_token_ids)
        self.signals: Mapping[str, Sequence[float]] = {}
        """Measurements of the batch to come, by name, one per completion; NaN = not measured."""

    def __call__(
        self,
        completions: list[TRLCompletion],
        completion_ids: list[list[int]],
        prompt_id: list[str],
        **columns: Any,
    ) -> list[float | None]:
        """Values of a batch whose groups are neighbours.

        Errors: ValueError when the batch is not made of whole groups, or when the reward raises, returns another number
        of values, or one that is NaN, infinite or no number; it names the reward and the prompt.
        """
        size = self.num_generations
        if len(completions) % size:
            raise ValueError(
                f"reward {self.__name__}: got {len(completions)} completions, expected whole groups of {size}"
            )
        values: list[float | None] = []
        for start in range(0, len(completions), size):
            group = slice(start, start + size)
            if len(set(prompt_id[group])) != 1:
                raise ValueError(
                    f"reward {self.__name__}: completions {start} to {start + size - 1} mix several prompts"
                )
            row = self.rows[prompt_id[start]]
            values += self._score(
                [
                    self._completion(completions[place], completion_ids[place], row, place)
                    for place in range(start, start + size)
                ]
            )
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

    def _score(self, group: list[Completion]) -> list[float | None]:
        where = f"reward {self.__name__}, prompt {group[0].row.prompt_id}"
        try:
            values = list(self.reward(group, **self.options))
        except Exception as error:
            raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
        if len(values) != len(group):
            raise ValueError(f"{where}: got {len(values)} values for {len(group)} completions")
        for value in values:
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise ValueError(f"{where}: got {value!r}, expected a finite number or None")
        return [None if value is None else float(value) for value in values]

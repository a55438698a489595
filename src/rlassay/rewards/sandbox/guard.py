"""Guard rewards: a failed completion gets no value and is counted; too many failures stop the run."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

from rlassay.records import Completion
from rlassay.rewards import EXTRA_METRICS, IN_THEIR_OWN_PROCESS, REWARDS, WITH_METRICS, is_per_sample
from rlassay.rewards.outcomes import Failure, FailureKind, RewardError, RewardOutcome, outcomes_of, value_of
from rlassay.rewards.sandbox.isolation import score_in_worker

MINIMUM = 32
"""Completions that must have been scored before the failure rate can stop a run."""
logger = logging.getLogger(__name__)


class TooManyFailuresError(RewardError):
    """A reward failed on too large a share of the completions."""


class GuardedReward:
    """A reward that returns None where it fails on a completion, and counts its failures."""

    def __init__(
        self,
        name: str,
        score: Callable[[Sequence[Completion]], list[RewardOutcome]],
        options: Mapping[str, object],
        max_failures: float,
    ) -> None:
        """
        Args:
            name: the reward's name.
            score: maps one prompt's completions to one outcome each.
            options: the reward's options; `score` has them already.
            max_failures: the share of completions that may fail, counted since this job started.
        """
        self.name = name
        self.score = score
        self.options = options
        self.max_failures = max_failures
        self.failures: Counter[FailureKind] = Counter()
        """Failed completions by kind."""
        self.total = 0
        """All completions, failed or not."""
        self.first_failures: dict[FailureKind, str] = {}
        """Kind -> prompt and details of the first failure of that kind."""

    def __call__(self, completions: Sequence[Completion]) -> list[float | None]:
        """Values of one prompt's completions, None for a failure; raises the errors of `outcomes`."""
        return [value_of(each) for each in self.outcomes(completions)]

    def outcomes(self, completions: Sequence[Completion]) -> list[RewardOutcome]:
        """Values and failures of one prompt's completions.

        Raises:
            InvalidOutputError: another number of values than completions, or a value that is not a number.
            TooManyFailuresError: more than `max_failures` of at least `MINIMUM` completions have failed.
        """
        where = f"reward {self.name}, prompt {completions[0].row.prompt_id}" if completions else f"reward {self.name}"
        try:
            outcomes = self.score(completions)
        except RewardError as error:
            raise type(error)(f"{where}: {error}") from error
        self.total += len(outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self._count(outcome, completions[0].row.prompt_id)
        if self.total >= MINIMUM and self.failures.total() > self.max_failures * self.total:
            raise TooManyFailuresError(self._too_many())
        return outcomes

    def extra_metrics(self, values: Sequence[float]) -> dict[str, float]:
        """Further metrics of a batch's values, by name; empty for most rewards."""
        return EXTRA_METRICS[self.name](values, self.options) if self.name in EXTRA_METRICS and values else {}

    def summary(self) -> str:
        """The failures so far in one line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items()))
        return f"reward {self.name}: {self.failures.total()} of {self.total} completions failed ({kinds})"

    def _count(self, failure: Failure, prompt_id: str) -> None:
        if failure.kind not in self.first_failures:
            self.first_failures[failure.kind] = f"prompt {prompt_id}: {failure.text}"
            logger.warning(
                "reward %s failed (%s) on %s. Completions on which it fails get no value; their number is logged.",
                self.name,
                failure.kind,
                self.first_failures[failure.kind],
            )
        self.failures[failure.kind] += 1

    def _too_many(self) -> str:
        rate = self.failures.total() / self.total
        firsts = "; ".join(f"the first {kind}, {text}" for kind, text in self.first_failures.items())
        return (
            f"{self.summary()}: {rate:.1%}, more than the {self.max_failures:.1%} allowed; {firsts}. Fix the reward, "
            f"or raise rewards.{self.name}.max_failures or, for timeouts, rewards.{self.name}.timeout in the study; "
            "then run the same command again."
        )


def guarded(
    name: str, options: Mapping[str, object], *, timeout: float, max_failures: float, function: str | None = None
) -> GuardedReward:
    """Guard one of `REWARDS`; it runs in the worker, or here if its model has a process of its own.

    Args:
        name: the reward's name in logs and files.
        options: its options.
        timeout: seconds for each completion; a `timeout` among the options overrides it.
        max_failures: the share of completions that may fail.
        function: the key of `REWARDS` that scores; None if it is the name.
    """
    key = function or name
    reward, per_sample = WITH_METRICS.get(key, REWARDS[key]), is_per_sample(key, options)
    if key in IN_THEIR_OWN_PROCESS:
        return in_process(name, reward, options, per_sample=per_sample, max_failures=max_failures)
    limit = float(cast(float, options.get("timeout", timeout)))
    score = partial(score_in_worker, reward, options, per_sample=per_sample, timeout=limit)
    return GuardedReward(name, score, options, max_failures)


def in_process(
    name: str,
    reward: Callable[..., object],
    options: Mapping[str, object],
    *,
    per_sample: bool = False,
    max_failures: float = 0.1,
) -> GuardedReward:
    """Guard a reward that runs in this process.

    It has no time limit, and its crash ends the job.
    """

    def score(completions: Sequence[Completion]) -> list[RewardOutcome]:
        parts = outcomes_of(reward, options, completions, per_sample=per_sample)
        return [outcome for part in parts for outcome in part]

    return GuardedReward(name, score, options, max_failures)

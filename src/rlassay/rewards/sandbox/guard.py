"""Rewards whose failures cost one completion each, are counted, and stop the run when they are too many."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rlassay.records import Completion
from rlassay.rewards import FIGURES, IN_THEIR_OWN_PROCESS, REWARDS, is_per_sample
from rlassay.rewards.outcomes import Failure, FailureKind, Outcome, RewardError, judged
from rlassay.rewards.sandbox.isolation import judge_in_worker

MINIMUM = 32
"""Completions that must have been judged before a rate of failures stops a run."""
logger = logging.getLogger(__name__)


class TooManyFailuresError(RewardError):
    """A reward failed on too large a share of the completions."""


class GuardedReward:
    """A reward with a count of its failures, of which each costs a None."""

    def __init__(
        self,
        name: str,
        judge: Callable[[Sequence[Completion]], list[Outcome]],
        options: Mapping[str, object],
        max_failures: float,
    ) -> None:
        """
        Args:
            name: the reward's name.
            judge: from one prompt's completions to an outcome each.
            options: the reward's options, which `judge` knows already.
            max_failures: the share of completions that may fail, since this job started.
        """
        self.name = name
        self.judge = judge
        self.options = options
        self.max_failures = max_failures
        self.counts: Counter[FailureKind] = Counter()
        """Completions that failed, by kind."""
        self.total = 0
        """Completions, failed or not."""
        self.first: dict[FailureKind, str] = {}
        """The first failure of each kind: its prompt, and what is known."""

    def __call__(self, completions: Sequence[Completion]) -> list[float | None]:
        """Values of one prompt's completions, with None for a failure; raises what `outcomes` raises."""
        return [None if isinstance(each, Failure) else each for each in self.outcomes(completions)]

    def outcomes(self, completions: Sequence[Completion]) -> list[Outcome]:
        """Values or failures of one prompt's completions.

        Raises:
            WrongOutputError: another number of values than completions, or a value that is no number.
            TooManyFailuresError: more than `max_failures` have failed, of at least `MINIMUM` completions.
        """
        where = f"reward {self.name}, prompt {completions[0].row.prompt_id}" if completions else f"reward {self.name}"
        try:
            outcomes = self.judge(completions)
        except RewardError as error:
            raise type(error)(f"{where}: {error}") from error
        self.total += len(outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self._count(outcome, completions[0].row.prompt_id)
        if self.total >= MINIMUM and self.counts.total() > self.max_failures * self.total:
            raise TooManyFailuresError(self._too_many())
        return outcomes

    def figures(self, values: Sequence[float]) -> dict[str, float]:
        """What else is logged of a batch's values, by name; nothing for most rewards."""
        return FIGURES[self.name](values, self.options) if self.name in FIGURES and values else {}

    def summary(self) -> str:
        """The failures so far in one line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        return f"reward {self.name}: {self.counts.total()} of {self.total} completions failed ({kinds})"

    def _count(self, failure: Failure, prompt_id: str) -> None:
        if failure.kind not in self.first:
            self.first[failure.kind] = f"prompt {prompt_id}: {failure.text}"
            logger.warning(
                "reward %s: %s on %s. Such completions are not judged, and counted as failed.",
                self.name,
                failure.kind,
                self.first[failure.kind],
            )
        self.counts[failure.kind] += 1

    def _too_many(self) -> str:
        rate = self.counts.total() / self.total
        firsts = "; ".join(f"the first {kind}, {text}" for kind, text in self.first.items())
        return (
            f"{self.summary()}: {rate:.1%}, allowed are {self.max_failures:.1%}; {firsts}. To go on, mend the reward, "
            f"or raise rewards.{self.name}.max_failures or, for time-outs, rewards.{self.name}.timeout in the study, "
            "and run the same command again."
        )


def guarded(name: str, options: Mapping[str, object], *, timeout: float, max_failures: float) -> GuardedReward:
    """One of `REWARDS`, judged in the worker process, or here if it uses a process of its own.

    Args:
        name: a key of `REWARDS`.
        options: its options.
        timeout: seconds for each completion; rewards with a process of their own mind the time themselves.
        max_failures: the share of completions that may fail.
    """
    if name in IN_THEIR_OWN_PROCESS:
        return here(name, REWARDS[name], options, per_sample=is_per_sample(name, options), max_failures=max_failures)
    return GuardedReward(name, partial(judge_in_worker, name, options, timeout=timeout), options, max_failures)


def here(
    name: str,
    reward: Callable[..., object],
    options: Mapping[str, object],
    *,
    per_sample: bool = False,
    max_failures: float = 0.1,
) -> GuardedReward:
    """A reward judged in this process: exceptions and values that are not finite fail, time and crashes are its own."""

    def judge(completions: Sequence[Completion]) -> list[Outcome]:
        return [outcome for part in judged(reward, options, completions, per_sample=per_sample) for outcome in part]

    return GuardedReward(name, judge, options, max_failures)

"""The trainer's advantage step: replaces TRL's advantages by those of an estimator or critic."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlassay.advantages import AdvantageEstimator, check_estimator, estimate, grpo, reads
from rlassay.training.algorithms.critic import Critic, CriticOptions
from rlassay.training.algorithms.greedy_baseline import check_greedy, greedy_completions
from rlassay.training.batch import GenerationBatch, own_rows


class AdvantageStep:
    """Replaces TRL's advantages by those of an estimator or a critic; without either it does nothing."""

    def __init__(self, estimator: AdvantageEstimator | None, options: CriticOptions | None) -> None:
        """
        Args:
            estimator: gives an advantage per completion.
            options: of the critic that gives an advantage per token.

        Errors: ValueError for both at once.
        """
        if estimator is not None and options is not None:
            raise ValueError("critic: got one beside an advantage estimator; its advantages are those of GAE: drop one")
        self.estimator = estimator
        self.options = options
        self.critic: Critic | None = None

    def prepare(self, trainer: Any) -> None:
        """Check the requirements of the step on the trainer, and build the critic."""
        if self.estimator is not None:
            check_estimator(self.estimator, trainer.xp_groups.plan.train_on or trainer.num_generations)
        if "greedy_rewards" in reads(self.estimator):
            check_greedy(trainer)
        if self.options is not None:
            self.critic = Critic(self.options, trainer)

    def __call__(self, trainer: Any, batch: GenerationBatch, output: dict[str, Any]) -> None:
        """Write the advantages of this process's completions into `output` and into `batch`."""
        # TRL's own advantages are those of rewards without a penalty.
        default = None if batch.kl_penalty_BT is None else estimator_of_trl(trainer)
        estimator = self.estimator or default
        if self.critic is not None:
            output["advantages"], metrics = self.critic.advantages(batch, output)
            for name, value in metrics.items():
                trainer._metrics["train" if batch.is_training else "eval"][name].append(value)
        elif estimator is not None:
            output["advantages"] = self._estimated(estimator, trainer, batch)
        batch.advantages_B = _per_completion(output["advantages"], batch.completion_mask)
        if self.critic is not None or estimator is not None:
            # TRL has just written its own advantages into the table of completions that it logs.
            advantages, logged = trainer.accelerator.gather(batch.advantages_B), trainer._logs["advantages"]
            for _ in range(min(len(advantages), len(logged))):
                logged.pop()
            logged.extend(advantages.tolist())

    def _estimated(self, estimator: AdvantageEstimator, trainer: Any, batch: GenerationBatch) -> torch.Tensor:
        inputs: dict[str, torch.Tensor] = {}
        if "lengths" in reads(estimator):
            inputs["lengths"] = trainer.accelerator.gather(batch.completion_mask.sum(dim=1))
        if "greedy_rewards" in reads(estimator):
            batch.greedy = greedy_completions(trainer, batch)
            inputs["greedy_rewards"] = batch.greedy.rewards
        totals = batch.rewards.totals(trainer.multi_objective_aggregation)
        if batch.kl_penalty_BT is not None:
            totals = totals - trainer.accelerator.gather(batch.kl_penalty_BT.sum(dim=1))
        advantages = estimate(estimator, totals, batch.num_generations, **inputs)
        return own_rows(trainer.accelerator, advantages, len(batch.rows))

    def save(self, folder: Path) -> None:
        """Write the state of the step into a checkpoint."""
        if self.critic is not None:
            self.critic.save(folder)

    def load(self, folder: Path) -> None:
        """Read the state from a checkpoint."""
        if self.critic is not None:
            self.critic.load(folder)


def _per_completion(advantages: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    """(B,), advantages per completion; those per token become their mean over the counted tokens, 0 without any."""
    if advantages.ndim == 1:
        return advantages
    return (advantages * completion_mask).sum(dim=1) / completion_mask.sum(dim=1).clamp(min=1)


def estimator_of_trl(trainer: Any) -> AdvantageEstimator:
    """TRL's own advantages as an estimator; under `normalize_then_sum` it normalises totals over the whole batch."""
    if trainer.multi_objective_aggregation == "normalize_then_sum":
        return _over_the_batch
    return partial(grpo, scale=trainer.scale_rewards)


def _over_the_batch(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    return grpo(rewards, len(rewards), scale="batch")

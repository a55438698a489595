# pyright: basic
# (torch's optimisers and transformers' callbacks leave most arguments open)
"""End a run early if its policy has collapsed, by rules on its logged metrics."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlassay.config.algorithm import GUARDED_METRICS


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """Step and reason of the early end of a run."""

    step: int
    """The optimiser step, from 1, after which it ended."""
    reason: str
    """The rule that it broke, with the value."""


class CollapseGuard(TrainerCallback):
    """Stops training once a metric breaks its rule for `patience` logged steps in a row.

        guard = CollapseGuard({"min_entropy": 0.05, "max_kl": 10.0}, patience=5)
        trainer = CreditGRPOTrainer(..., callbacks=[guard])
        trainer.train()
        guard.collapse  # None, or a Collapse

    A gradient or a loss that is not finite stops it immediately; that step of the optimiser is left out, so that the
    weights stay those of the step before. A metric that is NaN breaks its rule; one that was not logged breaks none.

    Args:
        limits: rule -> limit, see `rlassay.config.algorithm.GUARDED_METRICS`.
        patience: steps in a row, at least 1.

    Errors: ValueError for an unknown rule, or a patience below 1.
    """

    def __init__(self, limits: Mapping[str, float], patience: int = 5) -> None:
        if unknown := ", ".join(sorted(set(limits) - set(GUARDED_METRICS))):
            raise ValueError(f"guard: unknown rule {unknown}, expected some of {', '.join(GUARDED_METRICS)}")
        if patience < 1:
            raise ValueError(f"patience: got {patience}, expected at least 1")
        self.limits = dict(limits)
        self.patience = patience
        self.collapse: Collapse | None = None
        self._broken = dict.fromkeys(self.limits, 0)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        parameters = list(kwargs["model"].parameters())
        sums = [parameter.grad.sum() for parameter in parameters if parameter.grad is not None]
        # Gradients are the same on every process here, so that all of them stop together.
        if sums and not bool(torch.isfinite(torch.stack(sums)).all()):
            for parameter in parameters:
                parameter.grad = None  # the optimiser skips parameters without a gradient
            self.collapse = Collapse(step=state.global_step + 1, reason="the gradient is not finite")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop |= self.collapse is not None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.collapse is None and logs is not None and "train_runtime" not in logs:
            self.collapse = self._judge(logs, state.global_step)
        control.should_training_stop |= self.collapse is not None

    def _judge(self, logs: Mapping[str, Any], step: int) -> Collapse | None:
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            return Collapse(step=step, reason="the loss is not finite")
        for rule, limit in self.limits.items():
            metric = GUARDED_METRICS[rule]
            value = logs.get(metric)
            if value is None:
                continue
            kept = value >= limit if rule.startswith("min_") else value <= limit  # NaN compares false
            self._broken[rule] = 0 if kept else self._broken[rule] + 1
            if self._broken[rule] >= self.patience:
                side = "below" if rule.startswith("min_") else "above"
                steps = f"for {self.patience} steps in a row" if self.patience > 1 else "once"
                return Collapse(step=step, reason=f"{metric} was {value:.3g}, {side} {rule} {limit:g} {steps}")
        return None

    def state_dict(self) -> dict[str, int]:
        """For each rule, the steps in a row that have broken it."""
        return dict(self._broken)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue counting."""
        self._broken = {rule: state.get(rule, 0) for rule in self.limits}

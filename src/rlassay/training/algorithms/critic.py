"""A critic, which estimates the reward to come after each token.

GAE computes the advantages of PPO from it. The critic is trained on each generation batch as soon as its advantages are
computed, by an optimizer of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor

from rlassay.advantages import gae, terminal_rewards, whiten
from rlassay.advantages.gae import explained_variance, value_errors
from rlassay.training.batch import GenerationBatch, gathered, own_rows, scored_by_trl

FILE = "critic.pt"
"""File of the critic in a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class CriticOptions:
    """Options of GAE and its critic."""

    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """Weight of later estimates; 1 = reward to come minus value, 0 = one-step errors."""
    value_model: Literal["separate", "head"] = "separate"
    """`separate` is a copy of the starting policy with a value head. It is trained in the parameters that the policy
    trains. `head` is a value head on the policy's own last hidden states, which it does not change."""
    value_learning_rate: float = 1e-5
    """Learning rate of the critic's AdamW, constant."""
    value_clip: float = 0.2
    """The loss sees values at most this far from those that made the advantages."""
    value_epochs: int = 1
    """Optimizer steps of the critic on each generation batch; clipping begins to act in the second."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        for name, value, valid in (
            ("gamma", self.gamma, 0 <= self.gamma <= 1),
            ("lam", self.lam, 0 <= self.lam <= 1),
            ("value_model", self.value_model, self.value_model in ("separate", "head")),
            ("value_learning_rate", self.value_learning_rate, self.value_learning_rate > 0),
            ("value_clip", self.value_clip, self.value_clip > 0),
            ("value_epochs", self.value_epochs, self.value_epochs >= 1),
        ):
            if not valid:
                raise ValueError(f"CriticOptions.{name}: got {value!r}, which is out of range")


class Critic:
    """Computes advantages per token, and learns the values."""

    def __init__(self, options: CriticOptions, trainer: Any) -> None:
        """
        Args:
            options: see there.
            trainer: the `CreditGRPOTrainer`, whose attributes have no types.

        The value head starts at 0, so that the first advantages are those of the rewards alone. Building it draws no
        random numbers.
        """
        self.options = options
        self.trainer = trainer
        policy = trainer._xp_model()
        width = policy.config.get_text_config().hidden_size
        self.device: torch.device = policy.device
        self.head = torch.nn.Linear(width, 1, device="meta").to_empty(device=self.device)
        for parameter in self.head.parameters():
            torch.nn.init.zeros_(parameter)
        self.own_backbone = deepcopy(_backbone(policy)).eval() if options.value_model == "separate" else None
        self.optimizer = torch.optim.AdamW(
            self.trained().values(), lr=options.value_learning_rate, weight_decay=0.0, fused=False
        )

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The critic's trained parameters by name."""
        parts = {"head": self.head} | ({} if self.own_backbone is None else {"backbone": self.own_backbone})
        named = ((f"{part}.{name}", each) for part, module in parts.items() for name, each in module.named_parameters())
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def advantages(
        self, batch: GenerationBatch, output: dict[str, Any]
    ) -> tuple[Float[Tensor, "batch time"], dict[str, float]]:
        """Whitened advantages of this process's completions, and metrics; then trains the critic in training mode.

        Args:
            batch: with its rewards and its mask.
            output: result of TRL's `_generate_and_score_completions`.

        A completion that no reward could score has advantage 0; neither the whitening nor the critic counts it.
        """
        accelerator, mask = self.trainer.accelerator, batch.completion_mask
        totals = batch.rewards.totals(self.trainer.multi_objective_aggregation)
        rewards = own_rows(accelerator, totals, len(mask))
        counted = mask * ~torch.isnan(rewards)[:, None]
        values_BT = self.values(output)
        rewards_BT = terminal_rewards(rewards, counted)
        if batch.kl_penalty_BT is not None:
            rewards_BT = rewards_BT - batch.kl_penalty_BT * counted
        advantages_BT, returns_BT = gae(rewards_BT, values_BT, counted, self.options.gamma, self.options.lam)
        everything = [gathered(accelerator, each, 0) for each in (advantages_BT, values_BT, returns_BT, counted)]
        all_advantages, all_values, all_returns, all_counted = everything
        whitened = whiten(all_advantages, all_counted.bool())
        metrics = {"critic/explained_variance": explained_variance(all_values, all_returns, all_counted.bool())}
        if batch.is_training:
            metrics |= self.learn(output, values_BT, returns_BT, counted.bool())
        return own_rows(accelerator, whitened, len(mask))[:, : mask.shape[1]], metrics

    @torch.no_grad()
    def values(self, output: dict[str, Any]) -> Float[Tensor, "batch time"]:
        """(B, T), the value before each token of the completions of this process."""
        return self._scored(output, lambda values, rows: values)

    def learn(
        self,
        output: dict[str, Any],
        values_BT: Float[Tensor, "batch time"],
        returns_BT: Float[Tensor, "batch time"],
        counted_BT: Bool[Tensor, "batch time"],
    ) -> dict[str, float]:
        """Fit the values to the returns, and return the metrics.

        The loss is a mean over the counted tokens of all processes.

        Args:
            output: result of TRL's `_generate_and_score_completions`.
            values_BT: (B, T), the values that made the advantages, from which clipping measures.
            returns_BT: (B, T), targets.
            counted_BT: (B, T), tokens that count.
        """
        accelerator, clip = self.trainer.accelerator, self.options.value_clip
        tokens = accelerator.reduce(counted_BT.sum(), reduction="sum").clamp(min=1)
        losses: list[Tensor] = []

        def learn_from(values: Tensor, rows: slice) -> Tensor:
            errors = value_errors(values, values_BT[rows], returns_BT[rows], clip)
            loss = torch.where(counted_BT[rows], errors, 0.0).sum() / tokens
            loss.backward()
            losses.append(loss.detach())
            return values.detach()

        for _ in range(self.options.value_epochs):
            losses.clear()
            self.optimizer.zero_grad()
            self._scored(output, learn_from)
            parameters = list(self.trained().values())
            sum_gradients(accelerator, parameters)
            if self.trainer.args.max_grad_norm > 0:  # 0 does not clip, as for the policy
                torch.nn.utils.clip_grad_norm_(parameters, self.trainer.args.max_grad_norm)
            self.optimizer.step()  # pyright: ignore[reportUnknownMemberType]  # torch leaves a parameter open
        loss = accelerator.reduce(torch.stack(losses).sum(), reduction="sum")
        return {"critic/value_loss": loss.item()}

    def save(self, folder: Path) -> None:
        """Write the critic and its optimizer into a checkpoint."""
        weights = {name: parameter.detach() for name, parameter in self.trained().items()}
        torch.save({"weights": weights, "optimizer": self.optimizer.state_dict()}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Read critic and optimizer from a checkpoint; ValueError if it was written without a critic."""
        if not (folder / FILE).is_file():
            raise ValueError(f"{folder}: got a checkpoint without {FILE}, expected one that was written with a critic")
        saved = torch.load(folder / FILE, map_location=self.device, weights_only=True)
        with torch.no_grad():
            for name, parameter in self.trained().items():
                parameter.copy_(saved["weights"][name])
        self.optimizer.load_state_dict(saved["optimizer"])

    def _scored(
        self, output: dict[str, Any], each: Callable[[Float[Tensor, "rows time"], slice], Tensor]
    ) -> Float[Tensor, "batch time"]:
        """The values of all completions, in chunks; `each` processes the values of a chunk, given with its rows.

        TRL's scoring function cuts the batch into chunks, images included. It calls `values` in place of the policy,
        and treats its values as log-probabilities of the tokens.
        """
        rows, length = _chunks(len(output["completion_ids"]), self._chunk), output["completion_ids"].shape[1]

        def values(labels: Tensor, fused_lm_head: bool, **inputs: Any) -> SimpleNamespace:
            with torch.autocast(labels.device.type, enabled=False):
                # Position t predicts token t + 1: its hidden state has seen everything before that token.
                before = self._hidden(inputs)[:, -length - 1 : -1].float()
                return SimpleNamespace(log_probs=each(self.head(before)[..., 0], next(rows)))

        return scored_by_trl(self.trainer, values, output)

    @property
    def _chunk(self) -> int:
        return self.trainer.args.per_device_train_batch_size

    def _hidden(self, inputs: dict[str, Any]) -> Float[Tensor, "rows positions width"]:
        if self.own_backbone is not None:
            with self.trainer.accelerator.autocast():
                return self.own_backbone(**inputs).last_hidden_state
        with torch.no_grad(), self.trainer.accelerator.autocast():
            return _backbone(self.trainer._xp_model())(**inputs).last_hidden_state


def sum_gradients(accelerator: Any, parameters: Sequence[torch.nn.Parameter]) -> None:
    """Give each parameter the sum of its gradients on all processes.

    The processes have to call it together. A process whose completions have no image has no gradient of the vision
    tower; it counts as 0 where another has one.
    """
    if accelerator.num_processes == 1:
        return
    given = torch.tensor([float(each.grad is not None) for each in parameters], device=parameters[0].device)
    counts = accelerator.reduce(given, reduction="sum").tolist()
    for parameter in (each for each, count in zip(parameters, counts, strict=True) if count):
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = accelerator.reduce(own, reduction="sum")


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _backbone(policy: Any) -> Any:
    """The policy without its language-model head."""
    model = policy.get_base_model() if isinstance(policy, PeftModel) else policy
    if model.base_model is model:
        raise ValueError(f"critic: got a {type(model).__name__}, expected a model with a language-model head")
    return model.base_model

# pyright: basic
# (TRL leaves most attributes of a trainer open)
"""KL control: a penalty for leaving the reference policy, with fixed or adaptive weight.

TRL's own `beta` adds k3, weighted by the importance ratio, to the loss; this module has the other penalties. TRL still
loads, moves and refreshes the reference model and computes its log-probabilities, and its loss runs without KL term.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.utils import logging
from trl.trainer.utils import use_adapter

from rlassay.credit import CreditPart, as_parts, check_parts
from rlassay.credit.parts import registered_name
from rlassay.divergence import PENALTIES, AdaptiveBeta, BetaController, exact_kl, penalty
from rlassay.training.batch import IMAGE_INPUTS, scored_by_trl, whole_sequences

logger: Any = logging.get_logger(__name__)

KINDS = (*PENALTIES, "exact")
"""Penalties of `rlassay.divergence.penalty`, and the sum over the vocabulary."""
NATS_PER_TOKEN = 1.0
"""Target per token, nats, above which a warning is given. More is far above the KL of a policy that still resembles its
reference."""
KL_WEIGHTS = "xp_kl_weights"
"""Key of a batch: (B, T), weight of the KL penalty of each token; absent where all are 1."""
LOAD_REFERENCE = 1.0
"""A `beta` other than 0. TRL then loads the reference model and computes its log-probabilities."""


class KLControl:
    """Penalises a policy for leaving its reference; for the argument `kl` of `CreditGRPOTrainer`.

        kl = KLControl(AdaptiveBeta(beta=0.01, target=0.1, horizon=10_000.0), kind="kl", where="reward")

    In the loss, `beta` times the penalty of each token is added to the loss of that token, and averaged with it
    according to `loss_type`. In the reward, `beta` times the sum of the penalties of a completion is taken from its
    total reward before advantages are computed; that penalty compares the policy that sampled with the reference, and
    has no gradient. With a `beta` of 0 the penalty is measured only. One adaptive step is taken after each use of a
    batch: in the loss after each optimiser step, in the reward after each generation batch.

    Args:
        controller: holds `beta`.
        kind: a key of `rlassay.divergence.PENALTIES`, or `exact`, which runs both models once more to see the whole
            vocabulary.
        where: whether the penalty is part of the `loss` or of the `reward`.
        per: the KL that the controller gets, the mean over completions of the penalty's mean over tokens (`token`) or
            of its sum over tokens (`sequence`).
        credit: parts as for `CreditGRPOTrainer`, whose weights multiply the penalty of each token in the loss; filters
            leave the penalty on the tokens that they keep. The metric and the controller see the penalty without them.

    Metrics: `kl`, the penalty's mean over completion tokens, `beta`, its weight, and with `credit` `kl_weight_mean`.

    Errors: ValueError for an unknown `kind`, `where` or `per`, `credit` in the reward, or a part that penalises.

    Source: in the reward with an adaptive weight, Ziegler et al. (arXiv 1909.08593), section 2.2; in the loss, GRPO
    (arXiv 2402.03300), equation 3.
    """

    def __init__(
        self,
        controller: BetaController,
        kind: str = "low_var_kl",
        where: str = "loss",
        per: str = "token",
        credit: CreditPart | str | Sequence[CreditPart | str] | None = None,
    ) -> None:
        choices = {"kind": (kind, KINDS), "where": (where, ("loss", "reward")), "per": (per, ("token", "sequence"))}
        for name, (got, known) in choices.items():
            if got not in known:
                raise ValueError(f"{name}: got {got!r}, expected one of {', '.join(known)}")
        self.controller, self.kind, self.where, self.per = controller, kind, where, per
        self.credit = as_parts(credit)
        check_parts(self.credit)
        if self.credit and where == "reward":
            raise ValueError("credit: weighs the penalty of tokens in the loss, but where is 'reward'; expected 'loss'")
        if "covariance_penalty" in map(registered_name, self.credit):
            raise ValueError("credit: covariance_penalty is a penalty of its own; expected weights, filters or scales")
        self._seen: Tensor | None = None
        self._warn()

    def _warn(self) -> None:
        """Warn of settings that are valid but rarely intended."""
        controller = self.controller
        if isinstance(controller, AdaptiveBeta) and self.per == "token" and controller.target > NATS_PER_TOKEN:
            logger.warning(
                f"KL target {controller.target:g} with per: token: a policy near its reference has far less than "
                f"{NATS_PER_TOKEN:g} nat per token, so that beta will only shrink; a target for whole completions "
                "needs per: sequence, one for tokens is about 0.1"
            )
        if self.kind == "kl" and self.where == "loss" and controller.beta:
            logger.warning(
                "KL kind kl in the loss: its expected gradient is 0, so that it adds noise and pulls nowhere; in the "
                "loss use mse or low_var_kl, or put it into the reward"
            )

    # In the reward.

    def of_reward(
        self, trainer: Any, output: Mapping[str, Any], mask: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time"] | None:
        """(B, T), nats to take from the reward of each token of this process; None if the loss has the penalty.

        Args:
            trainer: the trainer.
            output: the generation batch of this process, as TRL returns it.
            mask: (B, T), 1 on the tokens that the loss counts.
        """
        if self.where != "reward":
            return None
        with torch.no_grad():
            if self.kind == "exact":
                values_BT = exact_kl(*logits_of_both(trainer, trainer.model, output))
            else:
                values_BT = penalty(sampled_logps(trainer, output), output["ref_per_token_logps"], self.kind)
        values_BT = values_BT * mask
        beta = self.controller.beta
        self._log(trainer, values_BT, mask)
        if trainer.model.training:
            self._observe(values_BT, mask)
            self._step(trainer)
        return beta * values_BT

    # In the loss.

    def loss(
        self, trainer: Any, trl_loss: Callable[[Any, dict[str, Any]], Tensor], model: Any, inputs: dict[str, Any]
    ) -> Tensor:
        """TRL's loss without its own KL term, plus this one."""
        if self.where == "reward":
            with without_beta(trainer):
                return trl_loss(model, inputs)
        mask = loss_mask(inputs)
        # Before TRL's pass: with adapters, the reference is the same model with other adapters switched on meanwhile.
        both = logits_of_both(trainer, model, inputs) if self.kind == "exact" else None
        with without_beta(trainer):
            loss = trl_loss(model, inputs)
        if both is None:
            values_BT = penalty(trainer.xp_per_token_logps, inputs["ref_per_token_logps"], self.kind)
        else:
            values_BT = exact_kl(*both)
        beta = self.controller.beta  # of this step; `_step` changes it for the next one
        self._log(trainer, values_BT.detach(), mask)
        if trainer.model.training:
            self._observe(values_BT.detach(), mask)
            if trainer.accelerator.sync_gradients:
                self._step(trainer)
        weighted_BT = values_BT * inputs[KL_WEIGHTS] if KL_WEIGHTS in inputs else values_BT
        return loss if beta == 0 else loss + beta * averaged(trainer, weighted_BT, mask, inputs)

    # Both.

    def _log(self, trainer: Any, values_BT: Tensor, mask: Tensor) -> None:
        metrics = trainer._metrics["train" if trainer.model.training else "eval"]
        totals = trainer.accelerator.reduce(torch.stack([(values_BT * mask).sum(), mask.sum().float()]), "sum")
        metrics["kl"].append((totals[0] / totals[1].clamp(min=1.0)).item())
        metrics["beta"].append(self.controller.beta)

    def _observe(self, values_BT: Tensor, mask: Tensor) -> None:
        """Add a micro-batch to the KL for the controller; completions without tokens are left out."""
        counts = mask.sum(dim=1)
        of_completion = (values_BT * mask).sum(dim=1)
        if self.per == "token":
            of_completion = of_completion / counts.clamp(min=1)
        seen = torch.stack([of_completion.sum(), (counts > 0).sum().float()])
        self._seen = seen if self._seen is None else self._seen + seen

    def _step(self, trainer: Any) -> None:
        """Take one step of the controller, the same on every process. A KL that is not finite changes nothing."""
        total, count = trainer.accelerator.reduce(self._seen, "sum").tolist()
        self._seen = None
        if count and abs(total) < float("inf"):
            self.controller.update(total / count, int(count))


@contextmanager
def reference_model(config: Any, kl: KLControl | None) -> Generator[None, None, None]:
    """Have TRL's `__init__` load a reference model for `kl`, even if `config.beta` is 0.

    Errors: ValueError for no `config`, or for a `config.beta` beside another `beta` of the controller.
    """
    if kl is None:
        yield
        return
    if config is None:
        raise ValueError("args: got None beside kl, expected a GRPOConfig")
    beta = config.beta
    if beta not in (0.0, kl.controller.beta):
        raise ValueError(
            f"beta: got {beta:g} beside kl, whose controller starts from {kl.controller.beta:g}; leave beta at 0"
        )
    config.beta = LOAD_REFERENCE
    try:
        yield
    finally:
        config.beta = beta


@contextmanager
def without_beta(trainer: Any) -> Generator[None, None, None]:
    """TRL's loss without its own KL term."""
    beta, trainer.beta = trainer.beta, 0.0
    try:
        yield
    finally:
        trainer.beta = beta


def loss_mask(inputs: Mapping[str, Any]) -> Int[Tensor, "batch time"]:
    """(B, T), 1 on the tokens that TRL's loss counts.

    They are those of the completions that no tool wrote.
    """
    mask = inputs["completion_mask"]
    return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask


def averaged(
    trainer: Any, values_BT: Float[Tensor, "batch time"], mask: Int[Tensor, "batch time"], inputs: Mapping[str, Any]
) -> Float[Tensor, ""]:
    """Token values averaged as TRL averages token losses under the trainer's `loss_type`, accumulation included."""
    kept = values_BT * mask
    steps = trainer.current_gradient_accumulation_steps if trainer.model.training else 1.0
    kind = trainer.loss_type
    if kind in ("grpo", "sapo"):
        return (kept.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean() / steps
    if kind == "bnpo":
        return kept.sum() / mask.sum().clamp(min=1) / steps
    if kind == "dr_grpo":
        return kept.sum() / (len(kept) * trainer.max_completion_length) / steps
    if kind == "luspo":
        return kept.sum(dim=1).mean() / steps
    # cispo, dapo, vespo: the tokens of the generation batch, of which one optimiser step uses a part.
    tokens = inputs["num_items_in_batch"].clamp(min=1) / trainer.accelerator.num_processes
    if trainer.model.training:
        tokens = tokens * steps / trainer.args.steps_per_generation
    return kept.sum() / tokens


def sampled_logps(trainer: Any, output: Mapping[str, Any]) -> Float[Tensor, "batch time"]:
    """Log-probabilities of the completion tokens under the policy that sampled them.

    TRL computes them itself only where it trains on a batch for more than one optimiser step.
    """
    if "old_per_token_logps" in output:
        return output["old_per_token_logps"]
    return scored_by_trl(trainer, trainer.model, output)


def logits_of_both(
    trainer: Any, model: Any, inputs: Mapping[str, Any]
) -> tuple[Float[Tensor, "batch time vocabulary"], Float[Tensor, "batch time vocabulary"]]:
    """Logits of policy and reference at the completion tokens, divided by the temperature.

    Those of the reference have no gradient. All rows in one pass, so that each takes B x T x V numbers.
    """
    ids, mask = whole_sequences(inputs)
    keep = inputs["completion_ids"].shape[1]
    media = {name: inputs[name] for name in IMAGE_INPUTS if name in inputs} | trainer.xp_media_inputs(ids, keep)

    def logits(of: Any) -> Tensor:
        with trainer.accelerator.autocast():
            output = of(input_ids=ids, attention_mask=mask, use_cache=False, **media)
        return output.logits[:, -keep - 1 : -1] / trainer.temperature

    with torch.no_grad(), reference_of(trainer, model) as reference:
        of_reference = logits(reference)
    return logits(model), of_reference


@contextmanager
def reference_of(trainer: Any, model: Any) -> Generator[Any, None, None]:
    """The reference model: TRL's, or the policy without adapters or with their initial copy."""
    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    policy = trainer.accelerator.unwrap_model(model)
    with use_adapter(policy, adapter_name="ref" if "ref" in policy.peft_config else None):
        yield model

"""Loss terms per token: KL weights, and a penalty for leaving the sampling policy.

Both are computed on the whole generation batch and stay with its rows, which TRL shuffles and splits before the loss.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from rlassay.credit import Credit, CreditPart, TokenSignals, compose
from rlassay.credit.parts import registered_name
from rlassay.training.algorithms.kl_control import KL_WEIGHTS, averaged, loss_mask
from rlassay.training.batch import own_rows

OLD_POLICY_PENALTY = "xp_old_policy_penalty"
"""Key of a batch: (B, T), weight of each token's penalty. It is the penalty for leaving the policy that sampled it."""


def check_reuse(parts: Sequence[CreditPart], arguments: Any) -> None:
    """Raise ValueError for `covariance_penalty` with one step per generation batch, where its gradient is 0."""
    uses = arguments.steps_per_generation * arguments.num_iterations
    if "covariance_penalty" in map(registered_name, parts) and arguments.gradient_accumulation_steps % uses == 0:
        raise ValueError(
            "credit part covariance_penalty: each generation batch trains one optimiser step, in which the policy is "
            "the one that sampled and the penalty has no gradient; expected num_iterations of 2 or more, or "
            "steps_per_generation above gradient_accumulation_steps"
        )


def penalise_tokens(trainer: Any, credit: Credit, signals: TokenSignals, output: dict[str, Any]) -> dict[str, float]:
    """Add to a batch its old-policy penalty and the weights of its KL penalty.

    The old-policy penalty is for leaving the policy that sampled.

    Args:
        trainer: the trainer, whose `xp_kl` holds the credit parts that weigh the KL penalty.
        credit: of the batch, over all processes.
        signals: of all processes.
        output: the batch of this process, as TRL returns it; without parts it stays as it is.

    Returns the metric `kl_weight_mean`, where there are weights.
    """
    size, length = output["completion_ids"].shape
    if credit.old_policy_penalty_BT is not None:
        output[OLD_POLICY_PENALTY] = own_rows(trainer.accelerator, credit.old_policy_penalty_BT, size)[:, :length]
    if trainer.xp_kl is None or not trainer.xp_kl.credit:
        return {}
    of_kl = compose(trainer.xp_kl.credit, signals)
    if of_kl.old_policy_penalty_BT is not None:
        raise ValueError("kl.credit: got a part that penalises; expected weights, filters or scales; move it to credit")
    weights_BT = of_kl.weights_BT
    output[KL_WEIGHTS] = own_rows(trainer.accelerator, weights_BT, size)[:, :length]
    return {"kl_weight_mean": weights_BT[signals.completion_mask.bool()].mean().item()}


def with_penalty(trainer: Any, loss: Float[Tensor, ""], inputs: Mapping[str, Any]) -> Float[Tensor, ""]:
    """TRL's loss plus the penalty of each token, averaged as the token losses are.

    The penalty is `weight |log p - log p_old|`. In the first use of a batch TRL may keep no `old_per_token_logps`: the
    policy is the one that sampled, and the penalty is 0 with a gradient of 0.

    Args:
        trainer: the trainer, with the policy's log-probabilities of this micro-batch.
        loss: TRL's.
        inputs: the micro-batch.
    """
    old_BT = inputs.get("old_per_token_logps")
    if OLD_POLICY_PENALTY not in inputs or old_BT is None:
        return loss
    values_BT = inputs[OLD_POLICY_PENALTY] * (trainer.xp_per_token_logps - old_BT).abs()
    return loss + averaged(trainer, values_BT, loss_mask(inputs), inputs)

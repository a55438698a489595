"""KL of a policy from a reference: token penalties, and controllers of their weight `beta`.

A penalty estimates KL(policy, reference) from the sampled tokens; `exact_kl` sums over the vocabulary. All are in nats
per token. A controller holds `beta`, and `update` adapts it to the KL that was measured on a batch.

Whether a penalty suits the reward or the loss depends on its expected value and gradient over tokens of the policy:

| kind         | expected value            | expected gradient                        |
|--------------|---------------------------|------------------------------------------|
| `kl`         | KL(policy, reference)     | 0: it pulls nowhere in a loss            |
| `abs`        | above it                  | that of sum |p - q|, the total variation |
| `mse`        | near it if both are close | that of KL(policy, reference)            |
| `low_var_kl` | KL(policy, reference)     | that of KL(reference, policy), reversed  |

The clamps of `low_var_kl` are left out of the table.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.names import unknown
from rlassay.signals.formulas import kl as kl_over_vocabulary

LOG_RATIO_LIMIT = 20.0
"""`low_var_kl` clamps the log-ratio to this, so that its exponential stays finite; nats."""
PENALTY_LIMIT = 10.0
"""`low_var_kl` is at most this, so that no single token dominates a batch; nats."""
ERROR_LIMIT = 0.2
"""`AdaptiveBeta` clips the relative error of the KL to this."""


def low_var_kl(log_ratio: Tensor) -> Tensor:
    """The low-variance estimate of a KL from the log-ratio d: `e^-d + d - 1`.

    It is never negative, and of low variance where the policies are close. -d is clamped to +-20 and the result to at
    most 10, where the gradient becomes 0.
    """
    clamped = (-log_ratio).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return (torch.expm1(clamped) - clamped).clamp(-PENALTY_LIMIT, PENALTY_LIMIT)


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda log_ratio: log_ratio,
    "abs": torch.abs,
    "mse": lambda log_ratio: log_ratio.square() / 2,
    "low_var_kl": low_var_kl,
}
"""Name -> function of the log-ratio `ln policy - ln reference` of the sampled tokens."""


def penalty(
    per_token_logps: Float[Tensor, "*batch time"], ref_per_token_logps: Float[Tensor, "*batch time"], kind: str
) -> Float[Tensor, "*batch time"]:
    """Penalty of each sampled token for leaving the reference, nats; at least float32.

    Args:
        per_token_logps: (B, T), or (T,) of one completion, log-probabilities of the sampled tokens under the policy.
        ref_per_token_logps: the same shape, those of the same tokens under the reference.
        kind: with d = policy - reference: `kl` is d, `abs` is |d|, `mse` is d^2 / 2, `low_var_kl` is e^-d + d - 1.

    Padding gets a value as well: apply the completion mask to the result.

    Errors: ValueError for an unknown kind, listing the known ones, and for shapes that differ.

    Source: Schulman, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html, 2020): `kl`, `mse` and `low_var_kl`
    are its k1, k2 and k3. The names, `abs` and the clamps are verl's (`kl_penalty` in `core_algos.py`).
    """
    if kind in ("exact", "full"):
        raise ValueError(f"kind: got {kind!r}, which needs the logits of the whole vocabulary; call exact_kl with them")
    if kind not in PENALTIES:
        raise ValueError(unknown("kind", kind, PENALTIES))
    require_same_shape(per_token_logps, ref_per_token_logps, "ref_per_token_logps")
    return PENALTIES[kind](at_least_float32(per_token_logps) - at_least_float32(ref_per_token_logps))


def exact_kl(
    logits: Float[Tensor, "batch time vocabulary"], ref_logits: Float[Tensor, "batch time vocabulary"]
) -> Float[Tensor, "batch time"]:
    """KL(policy, reference) at each position, nats.

    It is `sum p (ln p - ln q)` over the vocabulary.

    Args:
        logits: (B, T, V), of the policy; -inf excludes a token.
        ref_logits: (B, T, V), of the reference. The KL is infinite where it excludes a token that the policy does not.

    Errors: ValueError for shapes that differ.
    """
    require_same_shape(logits, ref_logits, "ref_logits")
    return kl_over_vocabulary(at_least_float32(logits).log_softmax(dim=2), at_least_float32(ref_logits).log_softmax(2))


class BetaController(ABC):
    """Holds `beta`, the weight of the KL penalty. Its state is `beta` alone; the other attributes are settings."""

    beta: float

    @abstractmethod
    def update(self, current_kl: int | float, num_samples: int) -> float:
        """Adapt `beta` to the KL measured on `num_samples` completions; returns the new value."""

    def state_dict(self) -> dict[str, float]:
        """State to save in a checkpoint."""
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a saved state. Errors: ValueError for a negative or infinite `beta`."""
        self.beta = finite_number("beta", state["beta"], zero=True)


class FixedBeta(BetaController):
    """A `beta` that stays as it is, at least 0; `update` ignores its arguments."""

    def __init__(self, beta: int | float) -> None:
        self.beta = finite_number("beta", beta, zero=True)

    def update(self, current_kl: int | float, num_samples: int) -> float:
        return self.beta


class AdaptiveBeta(BetaController):
    """A `beta` that grows while the KL is above its target, and otherwise shrinks.

    `beta <- beta (1 + clip(current_kl / target - 1, -0.2, 0.2) num_samples / horizon)`.

    Args:
        beta: weight to start from, above 0: a product never leaves 0.
        target: KL to hold, in the unit of `current_kl`. A target for the sum over a completion, such as the 6 nats of
            Ziegler et al., is far above any mean over tokens, so that `beta` would only shrink; try 0.1 nats per token.
        horizon: completions over which a clipped error changes `beta` by about 20 %.

    Errors: ValueError for a value that is not above 0 or not finite.

    Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences" (arXiv 1909.08593), section 2.2.
    """

    def __init__(self, beta: int | float, target: int | float, horizon: int | float) -> None:
        self.beta = finite_number("beta", beta)
        self.target = finite_number("target", target)
        self.horizon = finite_number("horizon", horizon)

    def update(self, current_kl: int | float, num_samples: int) -> float:
        """Take one step of the controller; returns the new `beta`.

        Args:
            current_kl: KL of the batch: the mean over completions of the same quantity as `target`; may be below 0.
            num_samples: completions in the batch, at least 1 and below 5 times the horizon, where `beta` could reach 0.

        Errors: ValueError for a KL that is not finite, or for another number of completions; `beta` stays as it was.
        """
        if not math.isfinite(current_kl):
            raise ValueError(f"current_kl: got {current_kl!r}, expected a finite number")
        if not 1 <= num_samples < self.horizon / ERROR_LIMIT:
            limit = f"below {self.horizon / ERROR_LIMIT:g}, 5 times the horizon"
            raise ValueError(f"num_samples: got {num_samples!r}, expected at least 1 and {limit}")
        error = min(max(float(current_kl) / self.target - 1, -ERROR_LIMIT), ERROR_LIMIT)
        self.beta *= 1 + error * num_samples / self.horizon
        return self.beta


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32.

    Half precision leaves few digits in a difference of close log-probabilities.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def require_same_shape(policy: Tensor, reference: Tensor, name: str) -> None:
    """Raise ValueError for shapes that differ, since broadcasting would silently compare other tokens."""
    if policy.shape != reference.shape:
        raise ValueError(f"{name}: got shape {tuple(reference.shape)}, expected {tuple(policy.shape)}, the policy's")


def finite_number(name: str, value: int | float, zero: bool = False) -> float:
    """The value as a float. Errors: ValueError if it is not finite, negative, or 0 unless `zero` allows it."""
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name}: got {value!r}, expected a finite number {'of at least' if zero else 'above'} 0")
    return number

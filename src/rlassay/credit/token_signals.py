"""Arguments and results of credit parts: the signals of a batch, and `credit_part`.

`credit_part` declares the signals that a function needs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlassay.names import unknown
from rlassay.signals.formulas import SIGNALS


def remedy(names: Sequence[str]) -> str:
    """Advice for an error message: how to have missing signals measured."""
    wanted = "{" + ", ".join(f'"{name}"' for name in names) + "}"
    return (
        f"Declare what a function of your own reads, `credit_part(your_function, needs={wanted})`, or have it measured "
        f"with `signals=SignalPlan(also={wanted})`"
    )


@dataclass(frozen=True, kw_only=True)
class TokenSignals:
    """Signals of one whole generation batch, over all processes.

    Parts see the whole batch, so that its split over processes and micro-batches changes nothing. A signal is None if
    no part needs it, and NaN on tokens where it was not measured. Values outside the completion are ignored.
    """

    completion_mask: Int[Tensor, "batch time"]
    """(B, T), 1 on the tokens that the loss counts; a completion may have none."""
    advantages_B: Float[Tensor, "batch"]
    """(B,), the completions' advantages before credit."""
    has_image_B: Bool[Tensor, "batch"]
    """(B,), whether the prompt has an image."""
    entropy_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), nats: entropy of the distribution that the token was sampled from."""
    logps_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), nats: log-probability of the sampled token."""
    perception_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), nats: sensitivity of the token's probability to the image, see `perception`."""
    dominance_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), ratio: attention density on text over that on the image, see `modality_dominance`."""
    draws_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), uniform random draws in [0, 1). Run, step, prompt and sample seed them, so that controls repeat."""

    def named(self, name: str) -> Float[Tensor, "batch time"]:
        """A signal by its name (`entropy`, `logps`, ...); ValueError if it was not measured."""
        signals = {
            "entropy": self.entropy_BT,
            "logps": self.logps_BT,
            "perception": self.perception_BT,
            "dominance": self.dominance_BT,
            "draws": self.draws_BT,
        }
        signal = signals[name]
        if signal is None:
            raise ValueError(
                f"a credit part needs the signal {name!r}, got None: it was not measured. {remedy([name])}"
            )
        return signal

    @property
    def missing(self) -> list[str]:
        """Names of the signals that were not measured."""
        return [name for name in SIGNALS if getattr(self, f"{name}_BT") is None]


@dataclass(frozen=True, kw_only=True)
class OldPolicyPenalty:
    """A penalty on tokens for leaving the policy that sampled them.

    It adds `weight |log p - log p_old|` to their loss.
    """

    weights_BT: Float[Tensor, "batch time"]
    """(B, T), weight of each token's penalty, finite and not negative; 0 sets none."""


CreditPart = Callable[[TokenSignals], Tensor | OldPolicyPenalty]
"""A function of the signals, or a `functools.partial` of one. The type of its result decides its role:

- bool (B, T), a filter: the tokens to learn from;
- float (B, T), weights: finite and not negative on the completion;
- float (B,), a scale for each completion;
- int (B, T), an order: for each token, the position whose credit so far it takes; a permutation of each row;
- `OldPolicyPenalty`, which leaves the advantages as they are.

A function of your own declares the signals that it reads, see `credit_part`.
"""


def credit_part(part: Callable[..., Tensor | OldPolicyPenalty] | None = None, *, needs: Iterable[str] = ()) -> Any:
    """Declare the signals that your credit function reads, so that the trainer measures them.

    A function or a decorator:

        @credit_part(needs={"entropy"})
        def uncertain_tokens(signals: TokenSignals) -> Tensor:
            return signals.entropy_BT > 1.0

        CreditGRPOTrainer(..., credit=uncertain_tokens)
        CreditGRPOTrainer(..., credit=credit_part(lambda signals: signals.entropy_BT > 1.0, needs={"entropy"}))

    As with the parts of `CREDITS`, a filter then does not apply to a completion on which none of its signals was
    measured, such as one without an image.

    Args:
        part: the function; None returns the decorator.
        needs: names of `SIGNALS`; else ValueError.
    """
    names = frozenset([needs] if isinstance(needs, str) else needs)
    for name in sorted(names):
        if name not in SIGNALS:
            raise ValueError(unknown("needs", name, SIGNALS))

    def declare(function: Callable[..., Tensor | OldPolicyPenalty]) -> Callable[..., Tensor | OldPolicyPenalty]:
        vars(function)["needs"] = names
        return function

    return declare if part is None else declare(part)

"""What a credit part is given, and what the parts of an arm give together."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenSignals:
    """One whole generation batch, over all processes, so that no part depends on how a batch is cut up.

    A signal is None where no part needs it, and NaN on tokens for which it was not measured. What it is outside the
    completion does not matter.
    """

    completion_mask: Int[Tensor, "batch time"]
    """(B, T), 1 on the tokens that the loss counts; a completion may have none."""
    advantages_B: Float[Tensor, "batch"]
    """(B,), the completions' advantages before credit."""
    has_image_B: Bool[Tensor, "batch"]
    """(B,), whether the prompt holds an image."""
    entropy_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), nats: entropy of the distribution that the token was drawn from."""
    perception_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), nats: how much the token's probability owes to the image, see `perception`."""
    dominance_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), ratio: attention density on text over that on the image, see `modality_dominance`."""
    draws_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), uniform in [0, 1), made from run seed, step, prompt and sample, so that controls can be repeated."""

    def named(self, name: str) -> Float[Tensor, "batch time"]:
        """A signal by its name (`entropy`, `perception`, `dominance`, `draws`); ValueError if it was not measured."""
        signals = {
            "entropy": self.entropy_BT,
            "perception": self.perception_BT,
            "dominance": self.dominance_BT,
            "draws": self.draws_BT,
        }
        signal = signals[name]
        if signal is None:
            raise ValueError(f"a credit part needs the signal {name!r}, got None: it was not measured")
        return signal


CreditPart = Callable[[TokenSignals], Tensor]
"""A function of the signals, or a `functools.partial` of one. The type of what it gives says what it is:

- bool (B, T), a filter: the tokens that are to be learned from;
- float (B, T), weights: finite and not negative on the completion;
- float (B,), a scale for each completion;
- int (B, T), an order: for each token, the position whose credit so far it takes.
"""


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What the parts of an arm give together."""

    weights_BT: Float[Tensor, "batch time"]
    """(B, T), what each token's advantage is multiplied by: weights, scale, selection, denominator; 0 elsewhere."""
    selected_BT: Bool[Tensor, "batch time"]
    """(B, T), the tokens that the filters leave; without a filter, every token of the completions."""
    scale_B: Float[Tensor, "batch"] | None
    """(B,), the completions' scale, which is in the weights too; None without a part that scales."""
    metrics: dict[str, float]
    """Numbers to log, see `metrics`; one that no token or completion decides is left out."""

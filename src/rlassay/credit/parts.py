"""The credit parts that a study lists, by name: each takes the signals of a batch and says how credit is spread.

The key in `CREDITS`, `kind` in a study and the function's name are one and the same word. Where a part has the name of
a pure function (`attention_weights`, `trajectory_scaling`), the part takes signals and the pure function tensors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rlassay.credit import attention, sensitivity

# MERGED FROM credit.tokens: What a credit part is given, and what the parts of an arm give together.


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


# MERGED FROM credit.selection: Which tokens a filter keeps.

ROUNDING = 1e-9
"""Taken off `fraction * n` before it is rounded up, so that .55 of 100 tokens are 55 (a float makes it 55.00000001)."""


def top_fraction_mask(
    signal_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], fraction: float
) -> Bool[Tensor, "batch time"]:
    """The `ceil(fraction * n)` tokens with the largest signal within each completion of n tokens.

    Of equal signals the earliest is taken. NaN is never taken, so that a completion with too few measured tokens keeps
    fewer; a completion without tokens keeps none, any other at least one if it has a measured token.

    Args:
        signal_BT: (B, T), any unit.
        completion_mask: (B, T), 1 where a completion has a token.
        fraction: in (0, 1]; else ValueError.

    Source: token gradient filtering of VPPO (arXiv 2510.09285).
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: got {fraction!r}, expected a number above 0 and at most 1")
    measured_BT = completion_mask.bool() & ~torch.isnan(signal_BT)
    kept_B = torch.ceil(fraction * completion_mask.bool().sum(dim=1, dtype=torch.float64) - ROUNDING)
    order_BT = torch.where(measured_BT, signal_BT, -torch.inf).argsort(dim=1, descending=True, stable=True)
    measured_in_order = measured_BT.gather(1, order_BT)
    kept_in_order = measured_in_order & (measured_in_order.cumsum(dim=1) <= kept_B[:, None])
    return torch.zeros_like(measured_BT).scatter(1, order_BT, kept_in_order)


def batch_quantile_mask(
    signal_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], fraction: float
) -> Bool[Tensor, "batch time"]:
    """The tokens whose signal is at least the `1 - fraction` quantile of all measured tokens of the batch.

    Equal signals at the threshold are all taken, and a completion may keep none. NaN is never taken.

    Args: as `top_fraction_mask`.

    Source: `top_entropy_quantile` of TRL ("Beyond the 80/20 Rule", arXiv 2506.01939), whose quantile is that of a
    micro-batch; here it is that of whatever batch is given. Not `torch.quantile`, which refuses 2^24 tokens.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: got {fraction!r}, expected a number above 0 and at most 1")
    measured_BT = completion_mask.bool() & ~torch.isnan(signal_BT)
    values = signal_BT[measured_BT].sort().values
    if not len(values):
        return measured_BT
    place = (1 - fraction) * (len(values) - 1)
    below = math.floor(place)
    threshold = torch.lerp(values[below], values[math.ceil(place)], place - below)
    return measured_BT & (signal_BT >= threshold)


# MERGED FROM credit.parts: The credit parts that a study lists, by name: each takes the signals of a batch and
# says how credit is spread. The key in `CREDITS`, `kind` in a study and the function's name are one and the
# same word. Where a part has the name of a pure function (`attention_weights`, `trajectory_scaling`), the part
# takes signals and the pure function tensors.


def uniform(signals: TokenSignals) -> Float[Tensor, "batch time"]:
    """The same credit for every token: weights of 1.

    Source: GRPO (Shao et al. 2024, arXiv 2402.03300, eq. 3), where each token carries its completion's advantage.
    """
    return torch.ones_like(signals.completion_mask, dtype=torch.float32)


def attention_weights(
    signals: TokenSignals,
    clip: tuple[float, float] = (0.2, 3.0),
    sigma: float = 0.0,
    smooth_first: bool = False,
    quantile_cap: float | None = None,
    negative_scale: float = 1.0,
) -> Float[Tensor, "batch time"]:
    """Weights that favour the tokens which attended to the image; see the pure function of this name.

    Args:
        signals: with dominance.
        clip, sigma, smooth_first: as there.
        quantile_cap: weights are held at this quantile of their completion, last of all; None caps nothing.
        negative_scale: completions whose advantage is not positive have their weights multiplied by it.

    Source: JuncyLu/trl_DAPO (`smooth_first`, a cap of .95 and a negative scale of .5).
    """
    mask = signals.completion_mask
    weights_BT = attention.attention_weights(seen(signals, "dominance"), mask, clip, sigma, smooth_first)
    if quantile_cap is not None:
        weights_BT = attention.cap_at_quantile(weights_BT, mask, quantile_cap)
    return torch.where(signals.advantages_B[:, None] > 0, weights_BT, weights_BT * negative_scale)


def entropy_filter(
    signals: TokenSignals, fraction: float = 0.2, scope: Literal["completion", "batch"] = "completion"
) -> Bool[Tensor, "batch time"]:
    """The `fraction` of tokens with the highest entropy: of each completion, or above the quantile of the whole batch.

    A completion without any measured entropy keeps all its tokens.

    Source: within a completion TSYJ-He/Visual-Reweighting; over a batch "Beyond the 80/20 Rule" (arXiv 2506.01939).
    """
    choose = batch_quantile_mask if scope == "batch" else top_fraction_mask
    return _where_judged(entropy_filter, choose(signals.named("entropy"), signals.completion_mask, fraction), signals)


def perception_filter(signals: TokenSignals, fraction: float = 0.2) -> Bool[Tensor, "batch time"]:
    """The `fraction` of each completion's tokens that owe most to the image; all of them without an image.

    Source: token gradient filtering of VPPO (arXiv 2510.09285, eq. 4; its fraction is .4).
    """
    kept_BT = top_fraction_mask(signals.named("perception"), signals.completion_mask, fraction)
    return _where_judged(perception_filter, kept_BT, signals)


def trajectory_scaling(
    signals: TokenSignals, min_scale: float = 0.8, max_scale: float | None = None
) -> Float[Tensor, "batch"]:
    """A scale per completion by what it owes to the image; see the pure function of this name. 1 without an image."""
    return sensitivity.trajectory_scaling(seen(signals, "perception"), signals.completion_mask, min_scale, max_scale)


def random_filter(signals: TokenSignals, fraction: float = 0.2) -> Bool[Tensor, "batch time"]:
    """As many tokens of each completion as another filter of this `fraction` keeps, drawn at random: its control."""
    return top_fraction_mask(signals.named("draws"), signals.completion_mask, fraction)


def shuffled_weights(signals: TokenSignals) -> Int[Tensor, "batch time"]:
    """A random order of each completion's tokens, in which the credit of the parts before it is dealt out anew.

    The control of those parts: just as many tokens, the same weights, at the wrong places. After `entropy_filter` and
    `perception_filter` it is a random filter of exactly their joint rate. A scale per completion it leaves as it is.
    """
    valid_BT = signals.completion_mask.bool()
    draws_BT = torch.where(valid_BT, signals.named("draws"), torch.inf)
    # Both orders end with the padding, in its own order, so that padding stays where it is.
    places_BT = valid_BT.int().argsort(dim=1, descending=True, stable=True)
    drawn_BT = draws_BT.argsort(dim=1, stable=True)
    return torch.empty_like(places_BT).scatter(1, places_BT, drawn_BT)


CREDITS: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform,
    "attention_weights": attention_weights,
    "entropy_filter": entropy_filter,
    "perception_filter": perception_filter,
    "trajectory_scaling": trajectory_scaling,
    "random_filter": random_filter,
    "shuffled_weights": shuffled_weights,
}

NEEDS: dict[str, frozenset[str]] = {
    "uniform": frozenset(),
    "attention_weights": frozenset({"dominance"}),
    "entropy_filter": frozenset({"entropy"}),
    "perception_filter": frozenset({"perception"}),
    "trajectory_scaling": frozenset({"perception"}),
    "random_filter": frozenset({"draws"}),
    "shuffled_weights": frozenset({"draws"}),
}
"""The signals that each part reads."""

OF_THE_IMAGE = frozenset({"perception", "dominance"})
"""Signals that only completions with an image have."""


def as_parts(credit: CreditPart | Sequence[CreditPart] | None) -> list[CreditPart]:
    """One part, several or none as a list; TypeError for anything that cannot be called."""
    parts = [] if credit is None else [credit] if callable(credit) else list(credit)
    for part in parts:
        if not callable(part):
            raise TypeError(f"credit: got {part!r}, expected a function of the token signals, or a list of them")
    return parts


def name_of(part: CreditPart) -> str | None:
    """The name under which a part, with or without options, stands in `CREDITS`; None for a function of your own."""
    function = part.func if isinstance(part, partial) else part
    return next((name for name, known in CREDITS.items() if known is function), None)


def needs(parts: Sequence[CreditPart]) -> frozenset[str]:
    """The signals that parts of `CREDITS` read; what functions of your own read is not known here."""
    return frozenset[str]().union(*(NEEDS.get(name_of(part) or "", ()) for part in parts))


def judged(part: CreditPart, signals: TokenSignals) -> Bool[Tensor, "batch"]:
    """(B,), the completions that a part can judge: each signal that it needs was measured on one of their tokens.

    What is measured of the image is measured only where there is one. A function of your own judges all.
    """
    judged_B = torch.ones_like(signals.has_image_B)
    for name in needs([part]):
        signal_BT = seen(signals, name)
        judged_B &= (signals.completion_mask.bool() & ~torch.isnan(signal_BT)).any(dim=1)
    return judged_B


def seen(signals: TokenSignals, name: str) -> Float[Tensor, "batch time"]:
    """A signal; if it is one of the image, NaN on completions that have none."""
    signal_BT = signals.named(name)
    return torch.where(signals.has_image_B[:, None], signal_BT, torch.nan) if name in OF_THE_IMAGE else signal_BT


def _where_judged(
    part: CreditPart, kept_BT: Bool[Tensor, "batch time"], signals: TokenSignals
) -> Bool[Tensor, "batch time"]:
    """What a filter keeps; all tokens of a completion that it cannot judge."""
    return torch.where(judged(part, signals)[:, None], kept_BT, signals.completion_mask.bool())

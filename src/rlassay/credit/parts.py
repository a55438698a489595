"""The credit parts that a study lists, as functions of a batch's signals.

They return weights, filters, scales or penalties. `CREDITS` holds them by name. The key, `kind` in a study and the
function's name are the same word.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from typing import Any, Literal, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlassay.credit.formulas import (
    batch_quantile_mask,
    cap_at_quantile,
    covariance_mask,
    inverse_dominance_weights,
    perception_scale,
    token_covariance,
    top_fraction_mask,
)
from rlassay.credit.token_signals import CreditPart, OldPolicyPenalty, TokenSignals
from rlassay.names import unknown
from rlassay.signals.formulas import IMAGE_SIGNALS

PartT = TypeVar("PartT", bound=Callable[..., Any])


def _or_on_tensors(formula: Callable[..., Tensor]) -> Callable[[PartT], PartT]:
    """Let a part also take the tensors of its formula.

    The formula was once public under the part's name.
    """

    def decorate(part: PartT) -> PartT:
        @wraps(part)
        def part_or_formula(*args: Any, **options: Any) -> Tensor:
            first = args[0] if args else options.get("signals")
            return (part if isinstance(first, TokenSignals) else formula)(*args, **options)

        return part_or_formula  # pyright: ignore[reportReturnType]  # callers see the part's signature

    return decorate


def uniform(signals: TokenSignals) -> Float[Tensor, "batch time"]:
    """The same credit for every token: weights of 1.

    Source: GRPO (Shao et al. 2024, arXiv 2402.03300, eq. 3), where each token carries its completion's advantage.
    """
    return torch.ones_like(signals.completion_mask, dtype=torch.float32)


@_or_on_tensors(inverse_dominance_weights)
def attention_weights(
    signals: TokenSignals,
    clip: tuple[float, float] = (0.2, 3.0),
    sigma: float = 0.0,
    smooth_first: bool = False,
    quantile_cap: float | None = None,
    negative_scale: float = 1.0,
) -> Float[Tensor, "batch time"]:
    """Weights that favour tokens which attended to the image, see `inverse_dominance_weights`.

    Args:
        signals: with dominance.
        clip, sigma, smooth_first: see `inverse_dominance_weights`.
        quantile_cap: caps the weights at this quantile of their completion, last of all; None does not cap.
        negative_scale: multiplies the weights of completions whose advantage is not positive.

    Errors: ValueError for an option out of range.

    Source: JuncyLu/trl_DAPO (`smooth_first`, a cap of .95 and a negative scale of .5).
    """
    if not (negative_scale >= 0 and (quantile_cap is None or 0 <= quantile_cap <= 1)):
        raise ValueError(
            f"got quantile_cap {quantile_cap!r}, negative_scale {negative_scale!r}, expected a cap in [0, 1] or None, "
            "and a scale of at least 0"
        )
    mask = signals.completion_mask
    weights_BT = inverse_dominance_weights(defined_signal(signals, "dominance"), mask, clip, sigma, smooth_first)
    if quantile_cap is not None:
        weights_BT = cap_at_quantile(weights_BT, mask, quantile_cap)
    return torch.where(signals.advantages_B[:, None] > 0, weights_BT, weights_BT * negative_scale)


def entropy_filter(
    signals: TokenSignals,
    fraction: float = 0.2,
    scope: Literal["completion", "batch"] = "completion",
    choice: Literal["highest", "lowest"] = "highest",
) -> Bool[Tensor, "batch time"]:
    """Keep the `fraction` of tokens with highest (or lowest) entropy, per completion or per batch.

    A completion without any measured entropy keeps all its tokens.

    Source: within a completion TSYJ-He/Visual-Reweighting; over a batch "Beyond the 80/20 Rule" (arXiv 2506.01939).
    """
    if scope not in ("completion", "batch"):
        raise ValueError(f"scope: got {scope!r}, expected 'completion' or 'batch'")
    if choice not in ("highest", "lowest"):
        raise ValueError(f"choice: got {choice!r}, expected 'highest' or 'lowest'")
    select = batch_quantile_mask if scope == "batch" else top_fraction_mask
    entropy_BT = signals.named("entropy")
    kept_BT = select(entropy_BT if choice == "highest" else -entropy_BT, signals.completion_mask, fraction)
    return _or_all_tokens(kept_BT, entropy_filter, signals)


def perception_filter(signals: TokenSignals, fraction: float = 0.2) -> Bool[Tensor, "batch time"]:
    """Keep the `fraction` of each completion's tokens with the highest perception; all without an image.

    Source: token gradient filtering of VPPO (arXiv 2510.09285, eq. 4; its fraction is .4).
    """
    kept_BT = top_fraction_mask(signals.named("perception"), signals.completion_mask, fraction)
    return _or_all_tokens(kept_BT, perception_filter, signals)


@_or_on_tensors(perception_scale)
def trajectory_scaling(
    signals: TokenSignals, min_scale: float = 0.8, max_scale: float | None = None
) -> Float[Tensor, "batch"]:
    """Scale each completion by its mean perception, see `perception_scale`; 1 without an image."""
    return perception_scale(defined_signal(signals, "perception"), signals.completion_mask, min_scale, max_scale)


def covariance_filter(
    signals: TokenSignals,
    fraction: float = 2e-4,
    choice: Literal["largest", "random"] = "random",
    bounds: tuple[float, float] = (1.0, 5.0),
) -> Bool[Tensor, "batch time"]:
    """Leave out tokens of the batch whose advantage and log-probability covary most, see `covariance_mask`.

    Filters join by OR, so that a token left out here still counts if another filter selects it.
    """
    covariance_BT, valid_BT = _covariance(signals)
    return covariance_mask(covariance_BT, valid_BT, signals.named("draws"), fraction, choice, bounds)


def covariance_penalty(signals: TokenSignals, fraction: float = 2e-4, coef: float = 1.0) -> OldPolicyPenalty:
    """Penalise tokens whose advantage and log-probability covary most for leaving the policy that sampled them.

    `coef |log p - log p_old|` joins the loss of the `fraction` of the batch's tokens with the largest
    `token_covariance`. It has a gradient only where a batch is used for more than one optimiser step: in the first, p
    is p_old. Credit weights and filters leave it as it is; `shuffled_weights` after it is its control, which penalises
    as many tokens of each completion, at random.

    Args:
        signals: with logps.
        fraction: share of the batch's tokens to penalise, rounded down, but one at least.
        coef: weight of the penalty, at least 0.

    Errors: ValueError for an option out of range.

    Source: KL-Cov of "The Entropy Mechanism of Reinforcement Learning" (arXiv 2505.22617), with the values of verl.
    There the covariance is that of a mini-batch under the current policy, and the ratio is not clipped; here it is that
    of the generation batch under the policy that sampled, and the loss clips according to `loss_type`.
    """
    if not 0 <= coef < math.inf:
        raise ValueError(f"coef: got {coef!r}, expected a finite number of at least 0")
    covariance_BT, valid_BT = _covariance(signals)
    spared_BT = covariance_mask(covariance_BT, valid_BT, torch.zeros_like(covariance_BT), fraction, "largest")
    return OldPolicyPenalty(weights_BT=coef * (valid_BT & ~spared_BT).float())


def random_filter(signals: TokenSignals, fraction: float = 0.2) -> Bool[Tensor, "batch time"]:
    """Keep a random `fraction` of each completion's tokens: the control of the other filters."""
    return top_fraction_mask(signals.named("draws"), signals.completion_mask, fraction)


def shuffled_weights(signals: TokenSignals) -> Int[Tensor, "batch time"]:
    """A random order of each completion's tokens that shuffles the earlier parts' credit.

    The control of those parts: the same number of tokens and the same weights, at random positions. After
    `entropy_filter` and `perception_filter` it is a random filter of exactly their joint rate. A scale per completion
    stays as it is.
    """
    valid_BT = signals.completion_mask.bool()
    draws_BT = torch.where(valid_BT, signals.named("draws"), torch.inf)
    # Both orders end with the padding, in its own order, so that padding stays at its positions.
    positions_BT = valid_BT.int().argsort(dim=1, descending=True, stable=True)
    drawn_BT = draws_BT.argsort(dim=1, stable=True)
    return torch.empty_like(positions_BT).scatter(1, positions_BT, drawn_BT)


CREDITS: dict[str, Callable[..., Any]] = {
    "uniform": uniform,
    "attention_weights": attention_weights,
    "entropy_filter": entropy_filter,
    "perception_filter": perception_filter,
    "trajectory_scaling": trajectory_scaling,
    "covariance_filter": covariance_filter,
    "random_filter": random_filter,
    "shuffled_weights": shuffled_weights,
    "covariance_penalty": covariance_penalty,
}

NEEDS: dict[str, frozenset[str]] = {
    "uniform": frozenset(),
    "attention_weights": frozenset({"dominance"}),
    "entropy_filter": frozenset({"entropy"}),
    "perception_filter": frozenset({"perception"}),
    "trajectory_scaling": frozenset({"perception"}),
    "covariance_filter": frozenset({"logps", "draws"}),
    "random_filter": frozenset({"draws"}),
    "shuffled_weights": frozenset({"draws"}),
    "covariance_penalty": frozenset({"logps"}),
}
"""The signals that each part reads."""


def as_parts(credit: CreditPart | str | Sequence[CreditPart | str] | None) -> list[CreditPart]:
    """One part, several or none as a list; a string is a name of `CREDITS`.

    Raises:
        TypeError: something that is neither a function nor a name.
        ValueError: an unknown name.
    """
    given = [] if credit is None else [credit] if callable(credit) or isinstance(credit, str) else list(credit)
    parts: list[CreditPart] = []
    for part in given:
        if isinstance(part, str) and part not in CREDITS:
            raise ValueError(unknown("credit", part, CREDITS))
        function = CREDITS[part] if isinstance(part, str) else part
        if not callable(function):
            raise TypeError(
                f"credit: got {part!r}, expected a function of the token signals, the name of a part, or a list of them"
            )
        parts.append(function)
    return parts


def check_parts(parts: Sequence[CreditPart]) -> None:
    """Raise ValueError unless each part accepts its options and can be called with `TokenSignals`.

    Parts of `CREDITS` are called once with signals made up for the purpose. A custom function is not called.
    """
    size = (2, 3)
    values = torch.arange(1.0, 7.0).view(size) / 7
    signals = TokenSignals(
        completion_mask=torch.ones(size, dtype=torch.int64),
        advantages_B=torch.ones(2),
        has_image_B=torch.ones(2, dtype=torch.bool),
        entropy_BT=values,
        logps_BT=-values,
        perception_BT=values,
        dominance_BT=values,
        draws_BT=values,
    )
    for part in parts:
        try:
            if registered_name(part) is None:
                _signature(part).bind(signals)
            else:
                part(signals)
        except (TypeError, ValueError) as error:
            raise ValueError(f"credit part {part_name(part)}: {error}") from error


def _signature(part: CreditPart) -> inspect.Signature:
    try:
        return inspect.signature(part)
    except ValueError:
        if isinstance(part, partial):
            raise
        # A function written in C has no signature.
        return inspect.Signature([inspect.Parameter("signals", inspect.Parameter.POSITIONAL_ONLY)])


def registered_name(part: CreditPart) -> str | None:
    """Name of a part in `CREDITS`, with or without options; None for a custom function."""
    function = _function(part)
    return next((name for name, known in CREDITS.items() if known is function), None)


def _function(part: CreditPart) -> CreditPart:
    """A part without the options that `functools.partial` gave it."""
    return cast("partial[Tensor]", part).func if isinstance(part, partial) else part


def part_name(part: CreditPart) -> str:
    """Name of a part in messages."""
    function = _function(part)
    return registered_name(part) or str(getattr(function, "__name__", repr(function)))


def needs(parts: Sequence[CreditPart]) -> frozenset[str]:
    """The signals that parts read: those of `CREDITS` by `NEEDS`, custom functions as `credit_part` declared."""
    return frozenset[str]().union(*(_needs(part) for part in parts))


def _needs(part: CreditPart) -> frozenset[str]:
    name = registered_name(part)
    if name is not None:
        return NEEDS[name]
    declared: Iterable[str] = getattr(part, "needs", ())
    inner = frozenset[str]() if _function(part) is part else _needs(_function(part))
    return inner | frozenset(declared)


def applicable(part: CreditPart, signals: TokenSignals) -> Bool[Tensor, "batch"]:
    """(B,), whether a part applies to each completion.

    It does if its signals were measured on one of the tokens. Signals of the image are measured only where there is
    one. A custom function that declares no signals applies to all completions.
    """
    applies_B = torch.ones_like(signals.has_image_B)
    for name in needs([part]):
        signal_BT = defined_signal(signals, name)
        applies_B &= (signals.completion_mask.bool() & ~torch.isnan(signal_BT)).any(dim=1)
    return applies_B


def defined_signal(signals: TokenSignals, name: str) -> Float[Tensor, "batch time"]:
    """A signal by name; signals of the image are NaN on completions without one."""
    signal_BT = signals.named(name)
    return torch.where(signals.has_image_B[:, None], signal_BT, torch.nan) if name in IMAGE_SIGNALS else signal_BT


def _covariance(signals: TokenSignals) -> tuple[Float[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """(B, T), `token_covariance`, and the tokens on which it is defined."""
    logps_BT = signals.named("logps")
    valid_BT = signals.completion_mask.bool() & ~torch.isnan(logps_BT)
    return token_covariance(logps_BT, signals.advantages_B, valid_BT), valid_BT


def _or_all_tokens(
    kept_BT: Bool[Tensor, "batch time"], part: CreditPart, signals: TokenSignals
) -> Bool[Tensor, "batch time"]:
    """The tokens that a filter keeps; all tokens of a completion that it does not apply to."""
    return torch.where(applicable(part, signals)[:, None], kept_BT, signals.completion_mask.bool())

"""Rewards for attention to the image, from the signal modality dominance (MDI).

The MDI is text over vision, and is also called VGR.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal

from rlassay.records import Completion
from rlassay.rewards.accuracy import choice_accuracy


def modality_balance(
    completions: Sequence[Completion], *, ratio: int | float = 2.0, signal: str = "modality_dominance/late"
) -> list[float | None]:
    """Balance of attention to text and images, from -1 to 1.

    It is `2 b - 1` with `b = clip(1 - |ln MDI| / ln R, 0, 1)`: 1 at balance, -1 if either side dominates R times or
    more. None where the signal was not measured; 0 where it is not positive or not finite.

    Args:
        completions: one prompt's group.
        ratio: R > 1. Real models have an MDI of 4 to 40, where the published R = 2 always gives -1, hence no advantage.
        signal: name of the MDI among a completion's signals.

    Raises:
        ValueError: R is 1 or less.

    Source: the balance reward of JuncyLu/trl_DAPO, branch trl; Departure: there, R <= 1 counts as 2.
    """
    if not ratio > 1:
        raise ValueError(f"ratio: got {ratio}; expected more than 1")
    return [_balance(completion.signals.get(signal), ratio) for completion in completions]


def _balance(dominance: float | None, ratio: float) -> float | None:
    if dominance is None:
        return None
    if not (dominance > 0 and math.isfinite(dominance)):
        return 0.0
    return 2 * max(0.0, 1 - abs(math.log(dominance)) / math.log(ratio)) - 1


def vision_gain(
    completions: Sequence[Completion],
    *,
    form: Literal["quantile", "tanh"] = "quantile",
    hard_negative: bool = False,
    min_spread: int | float = 5.0,
    sigma: int | float = 1.0,
    signal: str = "modality_dominance/all",
) -> list[float | None]:
    """Reward completions that attend to text less than the others of their group.

    `quantile` maps v, the modality dominance (text over vision), to 0..1 between quantiles of the group, see
    `_by_quantiles`; neutral is 0.5. `tanh` gives -0.5 to 0.5 from deviations, see `_by_deviation`; neutral is 0. An
    unmeasured completion is neutral; in a group without any measurement, all are None.

    Args:
        completions: one prompt's group.
        form: the formula.
        hard_negative: centre the gain at 0 and give it only to right choices, if the group has at least two.
        min_spread: smallest q_high - q_low that counts, in units of v; lower it for small models, whose v is 1 to 5.
        sigma: scale of z in the `tanh` formula.
        signal: name of v among a completion's signals.

    Errors: ValueError for a negative `min_spread`, or a `sigma` that is not positive.
    Source: the reward of JuncyLu/trl_DAPO, branch main and its later form.
    """
    if not min_spread >= 0:
        raise ValueError(f"min_spread: got {min_spread}; expected 0 or more")
    if not sigma > 0:
        raise ValueError(f"sigma: got {sigma}; expected more than 0")
    values = [_measured(completion.signals.get(signal)) for completion in completions]
    if all(value is None for value in values):
        return [None for _ in values]
    gains = _by_quantiles(values, min_spread) if form == "quantile" else _by_deviation(values, sigma)
    if not hard_negative:
        neutral = 0.5 if form == "quantile" else 0.0
        return [gain + neutral for gain in gains]
    correct = [accuracy == 1 for accuracy in choice_accuracy(completions)]
    paid = sum(correct) >= 2
    return [gain if paid and right else 0.0 for gain, right in zip(gains, correct, strict=True)]


def _measured(value: float | None) -> float | None:
    return value if value is not None and value > 0 and math.isfinite(value) else None


def _by_quantiles(values: Sequence[float | None], min_spread: float) -> list[float]:
    """`(q_high - v) / (q_high - q_low)`, clipped to [0, 1], minus 0.5.

    The q are the 25 % and 75 % order statistics of the measured v, 10 % and 90 % for ten or more. All are 0 if fewer
    than three are measured or `q_high - q_low < max(min_spread, 0.1 median)`.
    """
    known = sorted(value for value in values if value is not None)
    count = len(known)
    neutral = [0.0 for _ in values]
    if count < 3:
        return neutral
    low, high = (0.25, 0.75) if count < 10 else (0.10, 0.90)
    q_low, q_high = known[int(low * count)], known[int(high * count)]
    spread = q_high - q_low
    if spread < max(min_spread, 0.10 * known[count // 2]) or spread <= 1e-6:
        return neutral
    return [0.0 if value is None else min(max((q_high - value) / spread, 0.0), 1.0) - 0.5 for value in values]


def _by_deviation(values: Sequence[float | None], sigma: float) -> list[float]:
    """`0.5 tanh(z / sigma)` with `z = (median - v) / (1.4826 MAD + 1e-8)`.

    All are 0 if fewer than two are measured or MAD < 1e-8.
    """
    known = [value for value in values if value is not None]
    centre = median(known)
    deviation = median(abs(value - centre) for value in known)
    if len(known) < 2 or deviation < 1e-8:
        return [0.0 for _ in values]
    scale = 1.4826 * deviation + 1e-8
    return [0.0 if value is None else 0.5 * math.tanh((centre - value) / scale / sigma) for value in values]


def saturated_share(values: Sequence[float], options: Mapping[str, object]) -> dict[str, float]:
    """`saturated`: the share of values at -1 or 1.

    There the reward no longer depends on the MDI.
    """
    return {"saturated": sum(abs(value) == 1 for value in values) / len(values)}


def neutral_share(values: Sequence[float], options: Mapping[str, object]) -> dict[str, float]:
    """`neutral`: the share of neutral values of `vision_gain`, 0.5, or 0 with `tanh` or `hard_negative`."""
    centred = options.get("form") == "tanh" or options.get("hard_negative", False)
    neutral = 0.0 if centred else 0.5
    return {"neutral": sum(value == neutral for value in values) / len(values)}

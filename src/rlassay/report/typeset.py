"""Numbers and times as readers see them: the one place that rounds."""

import re
from collections.abc import Mapping

from rlassay.records import Histogram
from rlassay.report.numbers import Difference, Estimate, Unit

DECIMALS: dict[Unit, int] = {"share": 1, "tokens": 1, "nats": 3, "value": 3}
EFFECT_UNIT: dict[Unit, str] = {"share": "points", "tokens": "tokens", "nats": "nats", "value": ""}
LEVEL_UNIT: dict[Unit, str] = {"share": "%", "tokens": "tokens", "nats": "nats", "value": ""}
NOTHING = "–"
ITEMS_ONLY = "†"
"""Stands at an interval that covers prompts only, because one seed ran."""
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def scaled(value: float, unit: Unit) -> float:
    """The value on the scale that is shown: a share in per cent, everything else as it is."""
    return 100 * value if unit == "share" else value


def number(value: float | None, unit: Unit, signed: bool = False) -> str:
    """`value` rounded for its unit, with a true minus sign; a dash when there is none."""
    if value is None:
        return NOTHING
    text = f"{scaled(value, unit):{'+' if signed else ''}.{DECIMALS[unit]}f}"
    if not any(digit in text for digit in "123456789"):  # no "-0.0"
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(shown: Estimate | Difference, unit: Unit, signed: bool = False) -> str:
    """`low to high`; empty when it was not measurable."""
    if shown.low is None or shown.high is None:
        return ""
    return f"{number(shown.low, unit, signed)} to {number(shown.high, unit, signed)}"


def with_interval(middle: float | None, shown: Estimate | Difference, unit: Unit, signed: bool = False) -> str:
    """`mean  [low to high]`, marked where one seed ran; the mean alone where there is no interval."""
    ends, text = interval(shown, unit, signed), number(middle, unit, signed)
    return f"{text}  [{ends}]{ITEMS_ONLY if shown.covers == 'items' else ''}" if ends else text


def size(shown: Estimate | Difference) -> str:
    """What a number rests on: `seeds × items`."""
    return f"{shown.num_seeds} × {shown.num_items:,}"


def probability(value: float) -> str:
    """A p-value to three decimals with its sign of comparison, never `= 0.000`."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def duration(seconds: float) -> str:
    """Wall time in the two largest units that matter: `2 h 05 min`, `3 min 20 s`, `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def one_line(text: str, longest: int = 200) -> str:
    """Text for a single line of a figure: no control characters, no line breaks, shortened to `longest` characters."""
    return shortened(re.sub(r"\s", " ", printable(text)), longest)


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and an ellipsis, `longest` characters in all."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def printable(text: str) -> str:
    """Text with the characters that UTF-8, HTML or XML cannot carry replaced by U+FFFD; line breaks and tabs stay."""
    return UNPRINTABLE.sub("\ufffd", text)


def spread(lengths: Histogram | None) -> str:
    """Where whole numbers lie, in words."""
    if lengths is None:
        return "none"
    low, lower, median, upper, high = lengths.quartiles
    if low == high:
        return f"all {low:,}"
    return f"{low:,} to {high:,}; half of them {lower:,} to {upper:,}, median {median:,}"


def counts(numbers: Mapping[str, int]) -> str:
    """Number -> how many, in words: the number alone where it is always the same."""
    if len(numbers) == 1:
        return next(iter(numbers))
    return ", ".join(f"{number} ({count:,})" for number, count in numbers.items()) or NOTHING


def weights(phases: tuple[tuple[float, float], ...]) -> str:
    """A reward's weight over training: `0.5`, or `1, from 10 % on 2.5`."""
    words = [f"{weight:g}" if start == 0 else f"from {100 * start:g} % on {weight:g}" for start, weight in phases]
    return ", ".join(words).replace("-", "−")


def correlations(values: Mapping[str, float | None]) -> str:
    """Correlations with their names, the strongest first: `length −0.31, form +0.12`; without undefined ones."""
    known = sorted(((name, value) for name, value in values.items() if value is not None), key=lambda one: -abs(one[1]))
    return ", ".join(f"{name} {value:+.2f}".replace("-", "−") for name, value in known) or NOTHING


def failures(counts: Mapping[str, int]) -> str:
    """How often judging failed: `2 timeout, 1 crash`."""
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in counts.items()) or NOTHING


FILTERS = {
    "counts": counts,
    "spread": spread,
    "number": number,
    "interval": interval,
    "size": size,
    "duration": duration,
    "printable": printable,
    "shortened": shortened,
    "weights": weights,
    "correlations": correlations,
    "failures": failures,
}
"""What the templates may use."""

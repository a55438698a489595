"""Text and images of page and report.md: rounded numbers, times, counts, lists, thumbnails.

Nothing else in the report rounds a number for readers.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image, ImageDraw

from rlassay.images import open_image
from rlassay.names import in_words
from rlassay.records import Histogram
from rlassay.report.content import Comparison, ComparisonOutcome
from rlassay.report.numbers import Estimate, PairedDifference, Table, Unit

DECIMALS: dict[Unit, int] = {"share": 1, "tokens": 1, "nats": 3, "value": 3}
EFFECT_UNIT: dict[Unit, str] = {"share": "points", "tokens": "tokens", "nats": "nats", "value": ""}
LEVEL_UNIT: dict[Unit, str] = {"share": "%", "tokens": "tokens", "nats": "nats", "value": ""}
DASH = "–"
"""Shown where there is no value."""
ONE_SEED = "†"
"""Follows an interval that covers prompts only, because one seed ran."""
OUTCOME_MARKS: dict[ComparisonOutcome, tuple[str, str]] = {
    "better": ("▲", "helps"),
    "worse": ("▼", "hurts"),
    "equivalent": ("≈", "no large effect"),
    "not resolved": ("○", "not resolved"),
    "seed variance not measured": ("◌", "one seed"),
    "missing": ("–", "no results"),
}
"""Outcome of a comparison -> its sign and its label."""
LARGEST = 320
"""Pixels on the longer side of a thumbnail."""
DIVIDED_FROM = 32
"""Width of a frame in pixels from which white lines divide a film strip. The lines are two pixels wide."""
LIGHT_ENOUGH = 40_000
"""Bytes up to which a small image is embedded unchanged."""
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


# Numbers.


def scaled(value: float, unit: Unit) -> float:
    """The value as the page shows it: shares in per cent, everything else unchanged."""
    return 100 * value if unit == "share" else value


def number(value: float | None, unit: Unit, signed: bool = False) -> str:
    """`value` rounded for its unit, with a true minus sign; a dash for None."""
    if value is None:
        return DASH
    text = f"{scaled(value, unit):{'+' if signed else ''}.{DECIMALS[unit]}f}"
    if not any(digit in text for digit in "123456789"):  # no "-0.0"
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(estimate: Estimate | PairedDifference, unit: Unit, signed: bool = False) -> str:
    """`low to high`; empty without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low, unit, signed)} to {number(estimate.high, unit, signed)}"


def with_interval(middle: float | None, estimate: Estimate | PairedDifference, unit: Unit, signed: bool = False) -> str:
    """`mean  [low to high]`, with `ONE_SEED` where one seed ran; the mean alone without an interval."""
    ends, text = interval(estimate, unit, signed), number(middle, unit, signed)
    return f"{text}  [{ends}]{ONE_SEED if estimate.covers == 'items' else ''}" if ends else text


def seed_values(values: tuple[float | None, ...], unit: Unit, signed: bool = False) -> str:
    """The value of each seed, where two to eight ran; else empty."""
    return " · ".join(number(value, unit, signed) for value in values) if 2 <= len(values) <= 8 else ""


def seed_places(values: tuple[float | None, ...], ends: tuple[float, float] | None) -> list[str]:
    """Positions of the dots of two or more seeds between `ends`, from 3 to 61; empty without ends."""
    if ends is None or len(values) < 2:
        return []
    low, high = ends
    reach = high - low
    return [f"{3 + 58 * ((value - low) / reach if reach > 0 else 0.5):.1f}" for value in values if value is not None]


def seed_range(table: Table, place: int) -> tuple[float, float] | None:
    """The smallest and the largest seed of a column; None where no row has two seeds."""
    cells = [row.cells[place] for row in table.rows]
    values = [value for cell in cells if len(cell.by_seed) > 1 for value in cell.by_seed if value is not None]
    return (min(values), max(values)) if values else None


def p_values(one: Comparison) -> str:
    """The p-value of a comparison: corrected where it is in the family; of equivalence where that is the verdict."""
    test, of = (one.equivalence, "equivalence: ") if one.outcome == "equivalent" else (one.difference, "")
    if test is None:
        return ""
    if test.p_holm is not None:
        return f"{of}Holm p {probability(test.p_holm)}"
    return "" if test.p_value is None else f"{of}uncorrected p {probability(test.p_value)}"


def comparison_details(one: Comparison, unit: Unit) -> str:
    """The line below a verdict: differences by seed, and in the metric's other modes."""
    seeds = seed_values(one.by_seed, unit, signed=True)
    parts = [f"by seed {seeds}"] if seeds else []
    for mode in one.other_modes:
        found = mode.difference
        seeds = seed_values(mode.by_seed, unit, signed=True)
        parts.append(
            f"{mode.title} {with_interval(found.effect, found, unit, True)}" + (f", by seed {seeds}" if seeds else "")
        )
    return "; ".join(parts)


def size(estimate: Estimate | PairedDifference) -> str:
    """Sample size of a number: `seeds × items`."""
    return f"{estimate.num_seeds} × {estimate.num_items:,}"


def probability(value: float) -> str:
    """A p-value to three decimals with `=` or `<`, never `= 0.000`."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def duration(seconds: float) -> str:
    """Wall time in its two largest units: `2 h 05 min` or `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def spread(lengths: Histogram | None) -> str:
    """Range, quartiles and median of whole numbers as text."""
    if lengths is None:
        return "none"
    low, lower, median, upper, high = lengths.quartiles
    if low == high:
        return f"all {low:,}"
    return f"{low:,} to {high:,}; half of them {lower:,} to {upper:,}, median {median:,}"


def counts(numbers: Mapping[str, int]) -> str:
    """Counts as text, such as `2 (300), 4 (100)`; a single number without its count."""
    if len(numbers) == 1:
        return next(iter(numbers))
    return ", ".join(f"{number} ({count:,})" for number, count in numbers.items()) or DASH


def weights(phases: tuple[tuple[float, float], ...]) -> str:
    """A reward's weight over training: `0.5`, or `1, from 10 % on 2.5`."""
    parts = [f"{weight:g}" if start == 0 else f"from {100 * start:g} % on {weight:g}" for start, weight in phases]
    return ", ".join(parts).replace("-", "−")


def correlations(values: Mapping[str, float | None]) -> str:
    """Correlations with their names, strongest first: `length −0.31, form +0.12`; undefined ones are left out."""
    known = sorted(((name, value) for name, value in values.items() if value is not None), key=lambda one: -abs(one[1]))
    signed = (f"{value:+.2f}".replace("-", "−") for _, value in known)
    return ", ".join(f"{in_words(name)} {value}" for (name, _), value in zip(known, signed, strict=True)) or DASH


def failures(counts: Mapping[str, int]) -> str:
    """Failed completions by kind: `2 timeout, 1 crash`."""
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in counts.items()) or DASH


# Text.


def breakable(name: str) -> Markup:
    """A dotted name with line breaks allowed after dots and underscores only, for narrow columns."""
    return Markup(re.sub(r"([._])(?=.)", r"\1<wbr>", str(escape(name))))


def printable(text: str) -> str:
    """Text with U+FFFD for characters that UTF-8, HTML or XML cannot carry; line breaks and tabs stay."""
    return UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str, longest: int = 200) -> str:
    """Text for one line of a figure, at most `longest` characters.

    It has no control characters or line breaks.
    """
    return shortened(re.sub(r"\s", " ", printable(text)), longest)


def shortened(text: str, longest: int) -> str:
    """The text; if longer than `longest` characters, its beginning and an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def quoted(label: str) -> str:
    """A label in quotes, which set it apart from the sentence around it."""
    return f"'{label}'"


def listed(labels: Sequence[str], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} {word} {labels[-1]}"


def counted(how_many: int, thing: str) -> str:
    """`1 arm`, `2 arms`."""
    return f"{how_many:,} {thing}" + ("" if how_many == 1 else "s")


# Templates.

FILTERS: dict[str, Callable[..., Any]] = {
    "breakable": breakable,
    "comparison_details": comparison_details,
    "correlations": correlations,
    "counted": counted,
    "counts": counts,
    "duration": duration,
    "failures": failures,
    "in_words": in_words,
    "interval": interval,
    "number": number,
    "printable": printable,
    "p_values": p_values,
    "probability": probability,
    "quoted": quoted,
    "shortened": shortened,
    "seed_places": seed_places,
    "seed_range": seed_range,
    "seed_values": seed_values,
    "size": size,
    "spread": spread,
    "weights": weights,
}
"""The filters that every template may use."""


def template_environment(extra_filters: Mapping[str, Callable[..., str]] | None = None, **options: Any) -> Environment:
    """The environment of the report's templates.

    Values are escaped, and an undefined variable is an error.
    """
    environment = Environment(
        loader=PackageLoader("rlassay.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters.update(FILTERS | dict(extra_filters or {}))  # pyright: ignore[reportUnknownMemberType] jinja2 leaves its type open
    return environment


def content_hash(text: str) -> str:
    """The hash by which a content security policy admits an inline style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# Images.


def inline_image(file: Path) -> dict[str, str | int]:
    """An image file as a data URI, with its size in pixels; an empty URI and size 0 if the file is absent."""
    if not file.is_file():
        return {"uri": "", "width": 0, "height": 0}
    kind = Image.MIME[Image.registered_extensions()[file.suffix.lower()]]
    return _embedded(file.read_bytes(), kind, open_image(file).size)


def thumbnail(file: Path, frames: int = 1) -> dict[str, str | int]:
    """As `inline_image`, but a smaller JPEG if large, with lines between frames.

    An image counts as large by its pixels or by the size of its file.

    Args:
        file: the image.
        frames: how many it shows side by side; each keeps half of `LARGEST` pixels, and a single one all of them.
    """
    if not file.is_file():
        return inline_image(file)
    image = open_image(file)
    longest = max(LARGEST, LARGEST * frames // 2)
    is_large = max(image.size) > longest or file.stat().st_size > LIGHT_ENOUGH
    if is_large:
        image.thumbnail((longest, longest))
    is_divided = frames > 1 and image.width >= DIVIDED_FROM * frames
    if not is_large and not is_divided:
        return inline_image(file)
    for frame in range(1, frames if is_divided else 1):
        edge = frame * image.width // frames
        ImageDraw.Draw(image).rectangle((edge - 1, 0, edge, image.height), fill="white")
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return _embedded(buffer.getvalue(), "image/jpeg", image.size)


def _embedded(content: bytes, kind: str, size: tuple[int, int]) -> dict[str, str | int]:
    return {"uri": f"data:{kind};base64,{base64.b64encode(content).decode()}", "width": size[0], "height": size[1]}

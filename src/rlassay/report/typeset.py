"""Numbers and times as readers see them: the one place that rounds."""

import re
from collections.abc import Mapping
from typing import Any

from rlassay.records import Histogram
from rlassay.report.content import Content, Outcome
from rlassay.report.curves import CREDIT_CURVES
from rlassay.report.numbers import Difference, Estimate, Unit

# MERGED FROM report.typeset: Numbers and times as readers see them: the one place that rounds.

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


# MERGED FROM report.wording: Sentences that the page and report.md share.

VERDICTS: dict[Outcome, tuple[str, str]] = {
    "better": ("▲", "helps"),
    "worse": ("▼", "hurts"),
    "not resolved": ("○", "not resolved"),
    "seed variance not measured": ("◌", "one seed"),
    "missing": ("–", "no results"),
}


def what_was_run(content: Content) -> str:
    """The whole study in one line."""
    study, arms = content.study, {arm.name for arm in content.arms}
    steps = sorted({policy.max_steps for policy in content.policies if policy.row in arms})
    sets = {column.set for column in content.tables["main"].columns}
    items = sum(split.rows for split in content.data if split.split in sets)
    parts = [
        f"{_count(len(arms), 'arm')} × {_count(len(study.seeds), 'seed')}",
        f"{'–'.join(f'{step:,}' for step in dict.fromkeys((steps[0], steps[-1])))} RL steps per run" if steps else "",
        f"judged on {_count(items, 'held-out prompt')} with {_count(study.num_samples, 'sampled completion')} each",
    ]
    return ", ".join(part for part in parts if part) + "."


def _count(how_many: int, thing: str) -> str:
    return f"{how_many:,} {thing}" + ("" if how_many == 1 else "s")


def how_intervals_are_computed(content: Content) -> tuple[str, str, str]:
    """What the intervals are, what they cover, and what makes a verdict: one sentence each."""
    level = f"{100 * content.study.confidence:g}%"
    return (
        f"Every interval is a {level} interval that counts two sources of chance at once: how much the runs of one arm "
        "differ between seeds, and how much the prompts differ in difficulty (two crossed random effects, each with "
        "Student's t for its own count; comparisons are paired prompt by prompt).",
        "It therefore covers what would change if the study were repeated with new seeds and new prompts of the same "
        f"kind, and nothing else, such as another model or another data source; where only one seed ran ({ITEMS_ONLY}) "
        "it covers the prompts alone and is too narrow.",
        "An arm counts as helping or hurting when its interval against the baseline leaves out zero and Holm's "
        "correction over the declared family leaves it so; “not resolved” means that the data cannot tell, not that "
        "the arms are equal.",
    )


def total_cost(content: Content) -> str:
    """What all training jobs took together."""
    seconds = sum((cost.seconds for cost in content.cost), 0.0)
    tokens = sum(cost.generated_tokens for cost in content.cost)
    jobs = _count(len(content.cost), "training job")
    return f"{jobs} took {duration(seconds)} of wall time in all and sampled {tokens:,} tokens."


def has_credit(content: Content) -> bool:
    """Whether there is anything to say about token credit: completions word by word, or curves."""
    return content.credit is not None or any(curve.group in CREDIT_CURVES for curve in content.curves)


def signals_cost(content: Content) -> str:
    """What measuring the signals took; empty where no job measured any."""
    shares = sorted(cost.signals_share for cost in content.cost if cost.signals_share is not None)
    if not shares:
        return ""
    ends = dict.fromkeys(f"{number(share, 'share')} %" for share in (shares[0], shares[-1]))
    return f"Measuring signals took {' to '.join(ends)} of the time in steps ({_count(len(shares), 'run')})."


def resumed(content: Content) -> str:
    """Which jobs were interrupted and went on from a checkpoint."""
    stops = [f"{job.policy} at step {', '.join(map(str, job.steps))}" for job in content.resumes if job.steps]
    return f"Resumed from a checkpoint: {'; '.join(stops)}." if stops else "No job was interrupted."


def versions(content: Content) -> str:
    """The library versions, each combination once."""
    seen = dict.fromkeys(tuple(sorted(policy.versions.items())) for policy in content.policies)
    return "; or ".join(", ".join(f"{name} {version}" for name, version in pairs) for pairs in seen)


def facts(content: Content) -> dict[str, Any]:
    """What every template sees."""
    return {
        "content": content,
        "study": content.study,
        "primary": next(column for column in content.tables["main"].columns if column.primary),
        "level": f"{100 * content.study.confidence:g}%",
        "run_line": what_was_run(content),
        "interval_sentences": how_intervals_are_computed(content),
        "total_cost": total_cost(content),
        "has_credit": has_credit(content),
        "signals_cost": signals_cost(content),
        "resumed": resumed(content),
        "versions": versions(content),
        "outcomes": VERDICTS,
        "items_only": ITEMS_ONLY,
        "level_unit": LEVEL_UNIT,
        "step_parts": tuple(dict.fromkeys(part for job in content.cost for part in job.seconds_per_step)),
    }

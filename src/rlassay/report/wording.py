"""Sentences that the page and report.md share."""

from typing import Any

from rlassay.report.content import Content, Outcome
from rlassay.report.credit_curves import CREDIT_CURVES
from rlassay.report.typeset import ITEMS_ONLY, LEVEL_UNIT, duration, number

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

"""Sentences that page and report.md share: size of the study, metric, intervals, cost."""

import re
from typing import Any

from rlassay.report.content import Content
from rlassay.report.curves import CREDIT_CURVES
from rlassay.report.findings.answer import main_effects
from rlassay.report.findings.provenance import evaluation_cost, provenance_summary
from rlassay.report.numbers import Column, TableName
from rlassay.report.typeset import (
    EFFECT_UNIT,
    LEVEL_UNIT,
    ONE_SEED,
    OUTCOME_MARKS,
    counted,
    duration,
    number,
    quoted,
)


def run_summary(content: Content) -> str:
    """The size of the study in one sentence: arms, seeds, steps, evaluation prompts."""
    study, arms = content.study, {arm.name for arm in content.arms}
    steps = sorted({policy.max_steps for policy in content.policies if policy.row in arms})
    sets = {column.set for column in content.tables["main"].columns}
    items = sum(split.rows for split in content.data if split.split in sets)
    fewest = min((len(arm.seeds) for arm in content.arms), default=0)
    in_rounds = f"{fewest} to " if content.rounds is not None and fewest < len(study.seeds) else ""
    parts = [
        f"{counted(len(arms), 'arm')} × {in_rounds}{counted(len(study.seeds), 'seed')}",
        f"{'–'.join(f'{step:,}' for step in dict.fromkeys((steps[0], steps[-1])))} RL steps per run" if steps else "",
        f"evaluated on {counted(items, 'held-out prompt')} with "
        f"{counted(study.num_samples, 'sampled completion')} each",
    ]
    return ", ".join(part for part in parts if part) + "."


def table_range(content: Content, name: TableName) -> str:
    """The range of a table's first column over the arms, in one line; empty without the table."""
    table = content.tables.get(name)
    if table is None or not table.columns:
        return ""
    column = table.columns[0]
    found = [row.cells[0].mean for row in table.rows if row.kind == "arm" and row.cells[0].mean is not None]
    if not found:
        return ""
    ends = dict.fromkeys((number(min(found), column.unit), number(max(found), column.unit)))
    return f"{column.title}: {' to '.join(ends)} {LEVEL_UNIT[column.unit]}".rstrip()


def rejection_summary(content: Content) -> str:
    """The rows that each split kept, where duplicates, leaks or bad records were rejected."""
    parts: list[str] = []
    for split in content.data:
        rejected = sum(split.refused.values())
        if rejected:
            kinds = [counted(split.duplicates, "duplicate"), counted(split.leaks, "leak")]
            named = [text for text, count in zip(kinds, (split.duplicates, split.leaks), strict=True) if count]
            why = f" ({', '.join(named)})" if named else ""
            parts.append(f"{split.split}: {split.rows:,} of {split.rows + rejected:,} rows kept{why}")
    return "; ".join(parts)


def interval_notes(content: Content) -> tuple[str, ...]:
    """Paragraphs on the intervals' method, their coverage, and the rule for a resolved difference."""
    margin = content.study.smallest_effect
    declared = () if margin is None else (_equivalence_note(content, margin),)
    return (
        f"Every interval is a {level(content)} interval that includes two sources of chance: the runs of one arm "
        "differ between seeds, and the prompts differ in difficulty. They are two crossed random effects, each with "
        "Student's t for its own sample size. Comparisons are paired: both policies answer the same prompts.",
        "So an interval covers a repetition of the study with new seeds and new prompts of the same kind. It covers "
        "nothing else, such as another model or another data source. An interval from one seed "
        f"({ONE_SEED}) covers the prompts only and is too narrow.",
        "“Helps” and “hurts” mean that the interval of the difference from the baseline excludes zero and that the "
        "difference stays significant after Holm's correction over the declared family. “Not resolved” means that the "
        "data cannot decide. It does not mean that the arms are equal.",
        *declared,
    )


def _equivalence_note(content: Content, margin: float) -> str:
    column = primary_of(content)
    size = f"{number(margin, column.unit)} {EFFECT_UNIT[column.unit]}".rstrip()
    return (
        f"“No large effect” means that an effect of {size}, the study's declared smallest effect that matters, is "
        "rejected in both directions by two one-sided tests at "
        f"{100 - 100 * content.study.confidence:g}% each, corrected over the same family. The number of seeds or "
        "prompts that would find such an effect supposes the deviations that this study measured."
    )


def primary_of(content: Content) -> Column:
    """The column that the verdicts compare."""
    return next(column for column in content.tables["main"].columns if column.primary)


def primary_note(content: Content) -> str:
    """A sentence that explains the primary metric."""
    column, study = primary_of(content), content.study
    name = column.title.split(": ")[-1].split(",")[0]
    how = f"over {study.num_samples} sampled completions of each prompt" if column.mode == "sampled" else column.mode
    what = f"{name} is the share of right answers" if "accuracy" in column.metric else f"the metric is {name}"
    unit = {"share": "Differences are in percentage points", "tokens": "Differences are in tokens"}.get(column.unit)
    return (
        f"{what[0].upper()}{what[1:]}, {how}{checkpoints_note(content)}. "
        + (f"{unit}: " if unit else "At the right: ")
        + (f"the mean, its {level(content)} interval over seeds and prompts, and the p-value.")
    )


def modes_note(content: Content) -> str:
    """Explain the modes that contradict each other, for readers who do not know them."""
    text, samples = " ".join(content.modes_apart), content.study.num_samples
    known = {
        f"avg@{samples}": f"the mean over {samples} sampled completions of each prompt",
        "greedy": "one completion of each prompt, always of the most likely token",
        **{
            f"pass@{k}": f"the share of prompts of which at least one of {k} sampled completions is right"
            for k in range(samples, 1, -1)
        },
    }
    found = [f"{name} is {meaning}" for name, meaning in known.items() if re.search(rf"{name}\b", text)]
    return f"Here {'; '.join(found)}." if found else ""


def checkpoints_note(content: Content) -> str:
    """The weights of a run that are averaged, as the end of a sentence; empty for the trained ones alone."""
    found, count = content.held_out, content.study.num_checkpoints
    if found is None or count == 1:
        return ""
    return (
        f", averaged over the last {count} evaluated checkpoints of each run (one every {found.every} steps; the "
        "trained weights are one of them)"
    )


def attribution_note(content: Content) -> str:
    """Explanation of each method of attribution, and of the coverage of its intervals."""
    return (
        f"Differences in {primary_of(content).title}. Main effect: arms with the ingredient against arms without it, "
        "over all settings of the others. Leave-one-out: the arm with all ingredients against that without this one. "
        "Add-one-in: the arm with this ingredient alone against that with none. Shapley value: the mean gain over all "
        f"orders of adding the ingredients. Intervals are {level(content)} over seeds and prompts, not corrected for "
        "several comparisons, so they are no verdicts; a filled marker in the figure means that the interval excludes "
        "0."
    )


def held_out_note(content: Content) -> str:
    """Explanation of the held-out curves and their bands; empty without them."""
    found = content.held_out
    if found is None:
        return ""
    return (
        f"Every {found.every} steps, the weights of each run answered the set {found.set!r} as after training, with "
        f"the same sampling seeds. Step 0 is the policy before RL. Bands are {level(content)} intervals over seeds and "
        "prompts at each point. Tokens and time are means over the runs of an arm; time counts training steps alone."
        + (" The dotted line marks the tokens of the table below." if found.equal is not None else "")
    )


def beyond_note(content: Content) -> str:
    """Explanation of the profiles and the frontier; empty without both."""
    notes: list[str] = []
    if content.profiles is not None:
        notes.append(
            f"The first figure: at each score, the share of the {content.profiles.num_items} prompts on which a run "
            f"scores at least so much, mean over seeds with {level(content)} bands over seeds. Lines that cross mean "
            "that an arm is better on some prompts and worse on others."
        )
    if content.frontier is not None:
        left_out = ", ".join(quoted(arm.label) for arm in content.arms if arm.name in content.frontier.left_out)
        notes.append(
            "KL against score: a small mark per seed, a large one for the arm's mean; the further left, the "
            "closer to the policy before RL. The KL is estimated on training completions, over the last tenth of "
            "the steps." + (f" Without an estimate of the KL: {left_out}." if left_out else "")
        )
    return " ".join(notes)


def cost_summary(content: Content) -> str:
    """Number, wall time and sampled tokens of all training jobs; number and wall time of the evaluation's."""
    seconds = sum((cost.seconds for cost in content.cost), 0.0)
    tokens = sum(cost.generated_tokens for cost in content.cost)
    jobs = counted(len(content.cost), "training job")
    evaluation = "" if content.provenance is None else evaluation_cost(content.provenance)
    training = f"{jobs} took {duration(seconds)} of wall time in total and sampled {tokens:,} tokens."
    return f"{training} {evaluation}".rstrip()


def signals_cost(content: Content) -> str:
    """The share of step time that the signals took; empty if no job measured any."""
    shares = sorted(cost.signals_share for cost in content.cost if cost.signals_share is not None)
    if not shares:
        return ""
    ends = dict.fromkeys(f"{number(share, 'share')} %" for share in (shares[0], shares[-1]))
    return f"Measuring the signals took {' to '.join(ends)} of the step time ({counted(len(shares), 'run')})."


def step_parts(content: Content) -> list[str]:
    """Names of the timed parts of a step; the whole step comes first."""
    parts = dict.fromkeys(part for job in content.cost for part in job.seconds_per_step)
    return sorted(parts, key=lambda part: part != "step")


def resume_summary(content: Content) -> str:
    """The jobs that were interrupted and resumed from a checkpoint."""
    stops = [f"{job.policy} at step {', '.join(map(str, job.steps))}" for job in content.resumes if job.steps]
    return f"Resumed from a checkpoint: {'; '.join(stops)}." if stops else "No job was interrupted."


def version_list(content: Content) -> str:
    """The library versions, each combination once."""
    seen = dict.fromkeys(tuple(sorted(policy.versions.items())) for policy in content.policies)
    return "; or ".join(", ".join(f"{name} {version}" for name, version in pairs) for pairs in seen)


def made(content: Content) -> str:
    """Dates, machines and versions with which the study was made."""
    found = content.provenance
    return " ".join([*([] if found is None else [provenance_summary(found)]), f"{version_list(content)}."])


def level(content: Content) -> str:
    """Confidence level of the intervals, such as `95%`."""
    return f"{100 * content.study.confidence:g}%"


def template_variables(content: Content) -> dict[str, Any]:
    """The variables that page and report.md share."""
    return {
        "content": content,
        "study": content.study,
        "primary": primary_of(content),
        "primary_note": primary_note(content),
        "modes_note": modes_note(content),
        "level": level(content),
        "run_summary": run_summary(content),
        "rejection_summary": rejection_summary(content),
        "main_effects": main_effects(content.attribution, primary_of(content), content.study.confidence),
        "attribution_note": attribution_note(content),
        "interval_notes": interval_notes(content),
        "cost_summary": cost_summary(content),
        "held_out_note": held_out_note(content),
        "beyond_note": beyond_note(content),
        "has_credit": has_credit(content),
        "signals_cost": signals_cost(content),
        "resume_summary": resume_summary(content),
        "made": made(content),
        "outcome_marks": OUTCOME_MARKS,
        "one_seed": ONE_SEED,
        "level_unit": LEVEL_UNIT,
        "effect_unit": EFFECT_UNIT,
        "labels": {arm.name: arm.label for arm in content.arms},
        "row_labels": {row.row: row.label for row in content.tables["main"].rows},
        "step_parts": step_parts(content),
    }


def has_credit(content: Content) -> bool:
    """Whether the study recorded token credit: completions word by word, or curves."""
    return content.credit is not None or any(curve.group in CREDIT_CURVES for curve in content.curves)

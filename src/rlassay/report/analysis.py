"""From the results on disk to everything that the report says."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlassay.config.arms import differences, undeclared
from rlassay.config.settings import ReportSettings
from rlassay.config.study import Study
from rlassay.records import PromptRow
from rlassay.report.content import ArmFacts, Content, StudyFacts
from rlassay.report.credit_view import build_credit
from rlassay.report.curves import build_curves
from rlassay.report.examples import build_examples
from rlassay.report.gather import Results, Row, blaming, column_or_nan, sample_rows
from rlassay.report.numbers import (
    Command,
    DataSplit,
    Design,
    DesignRow,
    Estimate,
    PolicyCost,
    PolicyFacts,
    PolicyResumes,
    RewardPart,
    SampleRow,
)
from rlassay.report.tables import DECIMALS, build_tables, over_seeds, primary_column, tidy
from rlassay.report.typeset import shortened
from rlassay.report.verdicts import compare_with_baseline, compare_with_start, start_note, start_of
from rlassay.rewards import MOSTLY_ZERO_VARIANCE
from rlassay.rewards.outcomes import FAILURE_KINDS

# MERGED FROM report.origins: Where the numbers come from and what they cost: splits, sentinels, times,
# interruptions, commands.

TIMES = ("step", "generation", "reward", "signals")
"""The parts of a step whose seconds are logged as `time/<part>`."""


def build_policies(results: Results) -> list[PolicyFacts]:
    """Provenance of every trained policy, in table order."""
    return [
        PolicyFacts(
            policy=folder,
            row=row.key,
            seed=seed,
            fingerprint=proof["fingerprint"],
            steps=proof["steps"],
            max_steps=proof["max_steps"],
            sha256=_digest(proof["sha256"]),
            gpus=proof["gpus"],
            versions=proof["versions"],
        )
        for row, seed, folder in _trained(results)
        for proof in [results.proofs[folder]]
    ]


def build_cost(results: Results) -> list[PolicyCost]:
    """What each training job took, in table order."""
    return [
        PolicyCost(
            policy=folder,
            label=row.label,
            seed=seed,
            seconds=round(float(proof["seconds"]), 1),
            generated_tokens=proof["generated_tokens"],
            peak_memory_mb=None if proof.get("peak_memory_mb") is None else round(float(proof["peak_memory_mb"]), 1),
            seconds_per_step=_seconds_per_step(results, folder),
            signals_share=_signals_share(results, folder),
        )
        for row, seed, folder in _trained(results)
        for proof in [results.proofs[folder]]
    ]


def build_resumes(results: Results) -> list[PolicyResumes]:
    """Where each training job was resumed, in table order."""
    return [
        PolicyResumes(policy=folder, steps=tuple(resume["step"] for resume in results.proofs[folder]["resumes"]))
        for _, _, folder in _trained(results)
    ]


def build_commands(results: Results) -> list[Command]:
    """How to make the report, and how to train each arm again from step 0."""
    layout, again = results.layout, results.commands.again
    runs = [
        Command(target=f"{arm.label}, seed {seed}", command=again(layout.train_manifest(layout.run(name, seed))))
        for name, arm in results.study.arms.items()
        for seed in results.study.seeds
    ]
    return [Command(target="everything that is missing or out of date", command=results.commands.report()), *runs]


def _trained(results: Results) -> list[tuple[Row, int | None, str]]:
    """Row, seed and folder of every trained policy."""
    rows = [row for row in results.rows.values() if row.kind != "untrained"]
    return [(row, seed, folder) for row in rows for seed, folder in row.folders.items()]


def _digest(files: dict[str, str]) -> str:
    """One digest for the weights: that of the only file, or of all files' names and digests."""
    if len(files) == 1:
        return next(iter(files.values()))
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _seconds_per_step(results: Results, folder: str) -> dict[str, float]:
    """Mean seconds of a step and of its parts; empty for a job whose steps were not timed."""
    if folder not in results.metrics:
        return {}
    means = {part: tidy(column_or_nan(results.metrics[folder], f"time/{part}").mean()) for part in TIMES}
    return {part: mean for part, mean in means.items() if mean is not None}


def _signals_share(results: Results, folder: str) -> float | None:
    """Part of the training time that went into measuring signals; None for a job that timed none."""
    metrics = results.metrics.get(folder)
    if metrics is None or not {"time/step", "time/signals"} <= set(metrics):
        return None
    signals, steps = (np.nansum(metrics[name].to_numpy(dtype=float)) for name in ("time/signals", "time/step"))
    return tidy(signals / steps)


# MERGED FROM report.data_splits: The data section: what each split holds, what was refused, and a few of its
# rows.

SAMPLES = 3
"""Rows shown of each split."""
LONGEST = 600
"""Characters of a text that are shown."""


def build_splits(results: Results) -> list[DataSplit]:
    """The data splits, by name."""
    return [_split(results, name) for name in sorted(results.splits)]


def _split(results: Results, name: str) -> DataSplit:
    facts, path = results.splits[name], results.layout.split(name)
    with blaming(path, results.commands.again(results.layout.data_manifest)):
        samples = sample_rows(path, SAMPLES)
    counts = [
        sum(count for reason, count in facts.refused.items() if reason.startswith(kind))
        for kind in ("duplicate:", "leak:")
    ]
    return DataSplit(
        **dict(facts),
        split=name,
        duplicates=counts[0],
        leaks=counts[1],
        samples=tuple(_sample(row) for row in samples),
    )


def _sample(row: PromptRow) -> SampleRow:
    return SampleRow(
        prompt_id=row.prompt_id,
        question=shortened(row.question, LONGEST),
        choices=tuple(shortened(choice, LONGEST) for choice in row.choices),
        answer=shortened(row.answer, LONGEST),
        demonstration=None if row.demonstration is None else shortened(row.demonstration, LONGEST),
        images=tuple(f"../data/{item.path}" for item in row.media if item.kind == "image"),
        clips=tuple(Path(item.path).name for item in row.media if item.kind == "video"),
    )


def sample_images(content: Content) -> list[str]:
    """Paths of all images of the sample rows, relative to the report folder."""
    return sorted({path for split in content.data for row in split.samples for path in row.images})


# MERGED FROM report.design: The design table: every setting in which arms differ, who declares it, and who
# differs without declaring it.


def build_design(study: Study) -> Design:
    """The table and the outcome of the confound check."""
    found = differences(study)
    confounds = {name: {one.path for one in undeclared(found[name], arm.varies)} for name, arm in study.arms.items()}
    varied = {name: {one.path for one in found[name]} - confounds[name] for name in study.arms}
    paths = dict.fromkeys(one.path for arm in found.values() for one in arm)
    rows = tuple(
        DesignRow(
            key=path,
            values=_values(study, path),
            declared_by=tuple(name for name in study.arms if path in varied[name]),
            confounds=tuple(name for name in study.arms if path in confounds[name]),
        )
        for path in paths
    )
    return Design(sentence=_sentence(study, rows), rows=rows)


def _sentence(study: Study, rows: tuple[DesignRow, ...]) -> str:
    if len(study.arms) == 1:
        return "The study has one arm, so there is nothing to confound."
    confounded = [f"{study.arms[name].label} in {row.key}" for row in rows for name in row.confounds]
    if confounded:
        return f"Confounded, differs from the baseline without declaring it: {'; '.join(confounded)}."
    return (
        "Confound check passed: every arm differs from the baseline only in what it declares as varied, and everything "
        "that is not in this table is the same in every arm."
    )


def _values(study: Study, path: str) -> dict[str, str]:
    """Arm -> value at the path as JSON text; without the arms that have no such key."""
    recipes = {name: arm.recipe.model_dump(mode="json") for name, arm in study.arms.items()}
    found = {name: list(_at(recipe, path.split("."))) for name, recipe in recipes.items()}
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False)
        for name, values in found.items()
        for value in values
    }


def _at(place: Any, keys: list[str]) -> Iterator[Any]:
    """The value below the keys, or nothing."""
    if not keys:
        yield place
    elif isinstance(place, dict) and keys[0] in place:
        yield from _at(place[keys[0]], keys[1:])


# MERGED FROM report.reward_parts: The reward taken apart: what each one measured and what it added to the sum,
# observers included.


def build_reward_parts(results: Results, confidence: float) -> list[RewardPart]:
    """One part per arm and reward, in the study's order; arms without a finished run are left out."""
    return [
        _part(results, results.rows[name], reward, confidence)
        for name, arm in results.study.arms.items()
        for reward in arm.recipe.rewards
        if results.rows[name].policies
    ]


def _part(results: Results, row: Row, reward: str, confidence: float) -> RewardPart:
    recipe = results.study.arms[row.key].recipe
    phases = recipe.weight_phases[reward]
    trained = any(weight for _, weight in phases)
    runs = [results.rollouts[folder] for folder in row.folders.values()]
    first, last = [_sums(run.head(_tenth(run))) for run in runs], [_sums(run.tail(_tenth(run))) for run in runs]
    whole = [_sums(run) for run in runs]
    judged, completions = (sum(sums[name] for sums in whole) for name in (f"judged.{reward}", "completions"))
    rewards = list(recipe.rewards)
    others = [*(other for other in rewards if other != reward), "length"]
    same = _logged(results, row, f"rewards/{reward}/frac_zero_std")
    raw, added = (f"raw.{reward}", f"judged.{reward}"), (f"weighted.{reward}", "completions")
    return RewardPart(
        arm=row.key,
        reward=reward,
        role="trained" if trained else "observer",
        weight=phases[-1][1],
        phases=phases,
        first=_mean(first, raw, confidence),
        last=_mean(last, raw, confidence),
        weighted_last=_mean(last, added, confidence),
        not_judged=round(1 - judged / completions, DECIMALS),
        failed=_failures(whole, reward),
        same_in_group=same,
        silent=trained and same is not None and same > MOSTLY_ZERO_VARIANCE,
        correlations={other: _logged(results, row, _pair(reward, other, rewards)) for other in others},
    )


def _failures(runs: list[dict[str, float]], reward: str) -> dict[str, int]:
    counts = {kind: sum(sums.get(f"failed.{reward}.{kind}", 0.0) for sums in runs) for kind in FAILURE_KINDS}
    return {kind: int(count) for kind, count in counts.items() if count}


def _pair(reward: str, other: str, rewards: list[str]) -> str:
    """The metric that holds the correlation of two rewards, which is logged under the earlier one."""
    first, second = (other, reward) if other in rewards[: rewards.index(reward)] else (reward, other)
    return f"rewards/{first}/correlation/{second}"


def _logged(results: Results, row: Row, metric: str) -> float | None:
    """The mean of a metric over steps and seeds, without those where it was not defined."""
    runs = [results.metrics[folder] for folder in row.folders.values() if metric in results.metrics[folder]]
    values = np.concatenate([run[metric].to_numpy(dtype=float) for run in runs]) if runs else np.empty(0)
    defined = values[~np.isnan(values)]
    return tidy(float(defined.mean())) if len(defined) else None


def _tenth(run: pd.DataFrame) -> int:
    """A tenth of the generation batches, at least one."""
    return -(-len(run) // 10)


def _sums(part: pd.DataFrame) -> dict[str, float]:
    return {str(name): float(part[name].to_numpy(dtype=float).sum()) for name in part.columns}


def _mean(parts: list[dict[str, float]], ratio: tuple[str, str], confidence: float) -> Estimate:
    """Sum over count of every seed, and the interval over the seeds."""
    total, count = ratio
    values = np.array([sums[total] / sums[count] if sums[count] else np.nan for sums in parts])
    return over_seeds(values, int(parts[0]["completions"]), confidence)


# MERGED FROM report.analysis: From the results on disk to everything that the report says.


def analyse(results: Results, settings: ReportSettings) -> Content:
    """The report's content; equal for equal results but for `cost` and `resumes`."""
    confidence = settings.confidence
    return Content(
        study=_study(results, confidence),
        complete=not results.missing,
        missing=results.missing,
        arms=tuple(_arm(results, name) for name in results.study.arms),
        verdicts=tuple(compare_with_baseline(results, confidence)),
        gains=tuple(compare_with_start(results, confidence)),
        gains_note=start_note(results),
        design=build_design(results.study),
        tables=build_tables(results, confidence),
        curves=tuple(build_curves(results, confidence)),
        rewards=tuple(build_reward_parts(results, confidence)),
        examples=tuple(build_examples(results, settings.examples)),
        credit=build_credit(results, confidence),
        commands=tuple(build_commands(results)),
        policies=tuple(build_policies(results)),
        data=tuple(build_splits(results)),
        config=results.study.model_dump(mode="json"),
        cost=tuple(build_cost(results)),
        resumes=tuple(build_resumes(results)),
    )


def _study(results: Results, confidence: float) -> StudyFacts:
    study = results.study
    return StudyFacts(
        id=study.id,
        title=study.title,
        question=study.question,
        seeds=study.seeds,
        baseline=study.baseline,
        primary=primary_column(results).key,
        confidence=confidence,
        num_samples=study.evaluation.num_samples,
    )


def _arm(results: Results, name: str) -> ArmFacts:
    arm = results.study.arms[name]
    return ArmFacts(
        name=name,
        label=arm.label,
        color=arm.color,
        varies=arm.varies,
        weights={reward: section.weight for reward, section in arm.recipe.rewards.items()},
        seeds=results.rows[name].seeds,
        start=start_of(results, name).key,
    )

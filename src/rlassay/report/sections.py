"""Build the sections of the report without evaluation scores: rewards, data, provenance and cost."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlassay.config.policies import seeds_by_arm
from rlassay.files import combined_digest
from rlassay.prompts import shown_frames
from rlassay.records import Media, PromptRow, parse_row
from rlassay.report.gather import PolicyRow, Results, reading
from rlassay.report.numbers import (
    Command,
    DataSplit,
    Estimate,
    PolicyCollapse,
    PolicyCost,
    PolicyFacts,
    PolicyResumes,
    RewardPart,
    RunLinks,
    SampleRow,
)
from rlassay.report.read.scores import column_or_nan
from rlassay.report.tables import STORED_DECIMALS, over_seeds, tidy, value_limits
from rlassay.report.typeset import quoted, shortened
from rlassay.rewards import MOSTLY_ZERO_VARIANCE
from rlassay.rewards.outcomes import FAILURE_KINDS
from rlassay.tracking.links import read_links, runs_link, weights_link

NUM_SAMPLES = 3
"""Rows shown of each split."""
LONGEST = 600
"""Characters shown of a text."""
STEP_PARTS = ("step", "generation", "reward", "signals")
"""Timed parts of a step, logged as `time/<part>` in seconds."""

# Rewards during training.


def build_reward_parts(results: Results, confidence: float) -> list[RewardPart]:
    """One part per arm and reward, logged-only rewards included; arms without a finished run are left out."""
    return [
        _part(results, results.rows[name], reward, confidence)
        for name, arm in results.study.arms.items()
        for reward in arm.recipe.rewards
        if results.rows[name].policies
    ]


def _part(results: Results, row: PolicyRow, reward: str, confidence: float) -> RewardPart:
    recipe = results.study.arms[row.key].recipe
    phases = recipe.weight_phases[reward]
    trained = any(weight for _, weight in phases)
    whole, first, last = _sums_by_run(results, row)
    scored, completions = (sum(sums[name] for sums in whole) for name in (f"scored.{reward}", "completions"))
    rewards = list(recipe.rewards)
    others = [*(other for other in rewards if other != reward), "length"]
    same = _mean_metric(results, row, f"rewards/{reward}/frac_zero_std")
    raw, added = (f"raw.{reward}", f"scored.{reward}"), (f"weighted.{reward}", "completions")
    limits = value_limits(results, reward)
    return RewardPart(
        arm=row.key,
        reward=reward,
        role="trained" if trained else "observer",
        weight=phases[-1][1],
        phases=phases,
        first=_ratio(first, raw, confidence, limits),
        last=_ratio(last, raw, confidence, limits),
        weighted_last=_ratio(last, added, confidence),
        not_judged=round(1 - scored / completions, STORED_DECIMALS),
        failed=_failures(whole, reward),
        same_in_group=same,
        silent=trained and same is not None and same > MOSTLY_ZERO_VARIANCE,
        correlations={other: _mean_metric(results, row, _correlation(reward, other, rewards)) for other in others},
    )


Sums = dict[str, float]
"""Column of the rollouts -> sum over steps."""


def _sums_by_run(results: Results, row: PolicyRow) -> tuple[list[Sums], list[Sums], list[Sums]]:
    """Sums per run over all steps, the first tenth and the last tenth.

    A tenth is at least one step.
    """
    whole: list[Sums] = []
    first: list[Sums] = []
    last: list[Sums] = []
    for folder in row.folders.values():
        rollouts = results.rollouts[folder]
        columns = {str(name): column_or_nan(rollouts, str(name)) for name in rollouts.columns}
        tenth = -(-len(rollouts) // 10)
        whole.append({name: float(values.sum()) for name, values in columns.items()})
        first.append({name: float(values[:tenth].sum()) for name, values in columns.items()})
        last.append({name: float(values[-tenth:].sum()) for name, values in columns.items()})
    return whole, first, last


def _ratio(
    runs: list[Sums], ratio: tuple[str, str], confidence: float, limits: tuple[float, float] | None = None
) -> Estimate:
    """The ratio of two sums in each run, with its interval over the seeds."""
    total, count = ratio
    values = np.array([sums[total] / sums[count] if sums[count] else np.nan for sums in runs])
    return over_seeds(values, int(runs[0]["completions"]), confidence, limits)


def _failures(runs: list[Sums], reward: str) -> dict[str, int]:
    counts = {kind: sum(sums.get(f"failed.{reward}.{kind}", 0.0) for sums in runs) for kind in FAILURE_KINDS}
    return {kind: int(count) for kind, count in counts.items() if count}


def _correlation(reward: str, other: str, rewards: list[str]) -> str:
    """The metric with the correlation of two rewards, logged under the earlier one."""
    first, second = (other, reward) if other in rewards[: rewards.index(reward)] else (reward, other)
    return f"rewards/{first}/correlation/{second}"


def _mean_metric(results: Results, row: PolicyRow, metric: str) -> float | None:
    """Mean of a logged metric over the steps and seeds at which it is defined; None if there are none."""
    runs = [column_or_nan(results.metrics[folder], metric) for folder in row.folders.values()]
    values = np.concatenate(runs) if runs else np.empty(0)
    defined = values[~np.isnan(values)]
    return tidy(float(defined.mean())) if len(defined) else None


# Data.


def build_splits(results: Results) -> list[DataSplit]:
    """The data splits by name, each with its counts and a few rows."""
    return [_split(results, name) for name in sorted(results.splits)]


def _split(results: Results, name: str) -> DataSplit:
    facts, path = results.splits[name], results.layout.split(name)
    with reading(path, results.commands.remake(results.layout.data_manifest)):
        samples = sample_rows(path, NUM_SAMPLES)
    duplicates, leaks = (
        sum(count for reason, count in facts.refused.items() if reason.startswith(kind))
        for kind in ("duplicate:", "leak:")
    )
    return DataSplit(
        **dict(facts),
        split=name,
        duplicates=duplicates,
        leaks=leaks,
        samples=tuple(_sample(row) for row in samples),
    )


def _sample(row: PromptRow) -> SampleRow:
    return SampleRow(
        prompt_id=row.prompt_id,
        question=shortened(row.question, LONGEST),
        choices=tuple(shortened(choice, LONGEST) for choice in row.choices),
        answer=shortened(row.answer, LONGEST),
        demonstration=None if row.demonstration is None else shortened(row.demonstration, LONGEST),
        images=tuple(f"../data/{item.shown}" for item in row.media if item.shown),
        frames=tuple(item.num_frames for item in row.media if item.shown),
        clips=tuple(clip_facts(item) for item in row.media if item.kind == "video"),
    )


def clip_facts(clip: Media, most: Mapping[str, int | None] | None = None) -> str:
    """Name, length and shown frames of a clip: `a.mp4 (3 s, 4 frames/s; shown at 0, 0.5, 1 s)`.

    Args:
        clip: the clip.
        most: label -> most frames that the arm shows, as `most_frames`; arms that show fewer are named with theirs.
    """
    if not clip.times:
        return Path(clip.path).name
    shown = [f"shown at {_times(clip)} s"]
    for label, frames in (most or {}).items():
        if frames is not None and frames < len(clip.times):
            shown.append(f"to {quoted(label)} at {_times(clip, frames)} s")
    return f"{Path(clip.path).name} ({clip.duration:g} s, {clip.fps:g} frames/s; {', '.join(shown)})"


def _times(clip: Media, most: int | None = None) -> str:
    return ", ".join(f"{clip.times[index]:g}" for index in shown_frames(clip, most))


# Provenance and cost of the trained policies, in table order.


def build_policies(results: Results) -> list[PolicyFacts]:
    """Provenance of every trained policy."""
    return [
        PolicyFacts(
            policy=folder,
            row=row.key,
            seed=seed,
            fingerprint=manifest["fingerprint"],
            steps=manifest["steps"],
            max_steps=manifest["max_steps"],
            sha256=combined_digest(manifest["sha256"]),
            gpus=manifest["gpus"],
            versions=manifest["versions"],
        )
        for row, seed, folder, manifest in _trained(results)
    ]


def build_links(results: Results) -> RunLinks | None:
    """Addresses of the runs in MLflow, as far as they are in the tracking store; None without any."""
    links = read_links(results.layout.tracking)
    parents = {row.key: links.parents.get(row.policies[0].stem) for row in results.rows.values() if row.policies}
    runs = {folder: links.runs.get(folder) for _, _, folder, _ in _trained(results)}
    if not links.arms:
        return None
    return RunLinks(
        arms=links.arms,
        weights=weights_link(links.arms),
        curves=runs_link(links.arms),
        rows={key: link for key, link in parents.items() if link},
        policies={folder: link for folder, link in runs.items() if link},
    )


def build_cost(results: Results) -> list[PolicyCost]:
    """Time, tokens and memory of each training job, and signals' share of the time."""
    return [
        PolicyCost(
            policy=folder,
            label=row.label,
            seed=seed,
            seconds=round(float(manifest["seconds"]), 1),
            generated_tokens=manifest["generated_tokens"],
            peak_memory_mb=_rounded(manifest.get("peak_memory_mb")),
            seconds_per_step=_seconds_per_step(results, folder),
            signals_share=_signals_share(results, folder),
        )
        for row, seed, folder, manifest in _trained(results)
    ]


def build_collapses(results: Results) -> list[PolicyCollapse]:
    """The training jobs that their guards ended early."""
    return [
        PolicyCollapse(policy=folder, max_steps=manifest["max_steps"], **manifest["collapsed"])
        for _, _, folder, manifest in _trained(results)
        if "collapsed" in manifest
    ]


def build_resumes(results: Results) -> list[PolicyResumes]:
    """Interruptions of each training job."""
    return [
        PolicyResumes(policy=folder, steps=tuple(resume["step"] for resume in manifest["resumes"]))
        for _, _, folder, manifest in _trained(results)
    ]


def build_commands(results: Results) -> list[Command]:
    """Commands that make the report, and that train each run again from step 0."""
    layout, remake = results.layout, results.commands.remake
    seeds = seeds_by_arm(results.study, layout)
    runs = [
        Command(target=f"{arm.label}, seed {seed}", command=remake(layout.train_manifest(layout.run(name, seed))))
        for name, arm in results.study.arms.items()
        for seed in seeds[name]
    ]
    return [Command(target="everything that is missing or out of date", command=results.commands.report()), *runs]


def _trained(results: Results) -> Iterator[tuple[PolicyRow, int | None, str, dict[str, Any]]]:
    """Row, seed, folder and manifest of every trained policy."""
    for row in results.rows.values():
        if row.kind in ("sft", "arm"):
            for seed, folder in row.folders.items():
                yield row, seed, folder, results.manifests[folder]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 1)


def _seconds_per_step(results: Results, folder: str) -> dict[str, float]:
    """Mean seconds of a step and of its parts; empty if the steps were not timed."""
    if folder not in results.metrics:
        return {}
    means = {part: tidy(column_or_nan(results.metrics[folder], f"time/{part}").mean()) for part in STEP_PARTS}
    return {part: mean for part, mean in means.items() if mean is not None}


def _signals_share(results: Results, folder: str) -> float | None:
    """Share of the step time spent on signals; None if they were not timed."""
    metrics = results.metrics.get(folder)
    if metrics is None or "time/step" not in metrics or "time/signals" not in metrics:
        return None
    signals, steps = (float(np.nansum(column_or_nan(metrics, name))) for name in ("time/signals", "time/step"))
    return tidy(signals / steps)


def sample_rows(path: Path, count: int) -> list[PromptRow]:
    """At most `count` rows of a split, evenly spaced over its file; the rows between them are not read."""
    size = path.stat().st_size
    rows: dict[str, PromptRow] = {}
    with path.open("rb") as lines:
        for part in range(count):
            lines.seek(size * part // count)
            if part:  # most likely in the middle of a row
                lines.readline()
            start = lines.tell()
            if line := lines.readline():
                row = parse_row(line, f"{path}, byte {start}")
                rows[row.prompt_id] = row
    return list(rows.values())

# pyright: basic
# pyarrow ships no types; results of public functions are typed.
"""Speed of jobs and variation of scores, measured on finished results of this machine."""

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any, get_args

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlassay.cli.plans.estimates import rollout_completions, split_rows
from rlassay.config import Study, StudyError, load_study
from rlassay.config.engine import EngineName
from rlassay.config.load import CONFIG
from rlassay.config.policies import Policy, policies
from rlassay.job_times import job_seconds
from rlassay.layout import Layout, results_name
from rlassay.stats import PlannedTest, deviations_of

ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds per unit of work of each stage, medians over finished jobs; None = no such job has finished here."""

    source: str
    """The studies whose jobs were measured."""
    rl: float | None
    """Per completion token to sample at most."""
    sft: float | None
    """Per completion to imitate."""
    generate: float | None
    """Per completion token to sample at most."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Deviations of the difference between two arms in the primary metric."""

    source: str
    """Where they come from, in words."""
    seed_sd: float
    """Between seeds; for independent seeds it holds both arms."""
    item_sd: float
    """Between prompts."""
    pair_sd: float
    """Of a seed on a prompt, beyond the noise of sampling."""
    sample_sd: float
    """Of one sampled completion per arm."""
    matched_seeds: bool
    """Whether runs of one seed share a warm start of their own."""
    is_share: bool
    """Whether scores lie in [0, 1], so that a difference is counted in points."""

    def test(self, num_samples: int, confidence: float) -> PlannedTest:
        """The report's test of means over `num_samples` completions."""
        pair_sd = (self.pair_sd**2 + self.sample_sd**2 / num_samples) ** 0.5
        return PlannedTest(pair_sd=pair_sd, confidence=confidence, matched_seeds=self.matched_seeds)


def speed_of(study: Study, layout: Layout) -> Speed:
    """The speed of finished jobs with the study's model.

    The study's own jobs come first, then those of other studies in the results folder.
    """
    rates: dict[str, float | None] = {"rl": None, "sft": None, "generate": None}
    sources: list[str] = []
    for other, folder in _studies(study, layout):
        found: dict[str, list[float]] = {}
        for stage, rate in _rates(other, folder, study):
            found.setdefault(stage, []).append(rate)
        new = {stage: median(each) for stage, each in found.items() if rates[stage] is None}
        rates |= new
        sources += [other.id] if new else []
    return Speed(source=", ".join(sources), **rates)


def _studies(study: Study, layout: Layout) -> Iterator[tuple[Study, Layout]]:
    """The study itself, then those of `config/studies` that have results beside its own."""
    yield study, layout
    scales = sorted(path.stem for path in (CONFIG / "scales").glob("*.yaml"))
    for path in sorted((CONFIG / "studies").glob("*.yaml")):
        for scale, engine in product((None, *scales), (None, *ENGINES)):
            root = layout.root.parent / results_name(path.stem, scale, engine)
            if root != layout.root and (root / "runs").is_dir():
                try:
                    yield load_study(path.stem, scale, engine), Layout(root=root)
                except StudyError:
                    continue


def _rates(other: Study, layout: Layout, study: Study) -> Iterator[tuple[str, float]]:
    """Stage and seconds per unit of each comparable finished job.

    Its model, engine and hardware are those of the study.
    """
    models = [arm.recipe.model for arm in study.arms.values()]
    samplers = {arm.recipe.rl.engine.kind for arm in study.arms.values()}
    same_answers = other.evaluation.engine.kind == study.evaluation.engine.kind
    rows = split_rows(other)
    for policy in policies(other).values():
        if policy.recipe.model not in models or _hardware(other) != _hardware(study):
            continue
        for name in other.evaluation.sets:
            seconds, prompts = job_seconds(layout.benchmark(policy.folder, f"generate-{name}")), rows[name]
            if seconds is not None and prompts and same_answers:
                samples = sum(other.evaluation.modes.values())
                yield "generate", seconds / (prompts * samples * other.evaluation.max_completion_length)
        if policy.stage == "rl" and policy.recipe.rl.engine.kind not in samplers:
            continue
        if policy.is_trained and (seconds := _training_seconds(layout, policy)) is not None:
            yield policy.stage, seconds / _work(policy, other.num_processes)


def _hardware(study: Study) -> tuple[int, int, int]:
    return study.gpus, study.processes, study.nodes


def _work(policy: Policy, processes: int) -> int:
    sft, rl = policy.recipe.sft, policy.recipe.rl
    if policy.stage == "rl":
        return rollout_completions(rl, processes) * rl.max_completion_length
    assert sft is not None  # an sft policy has one
    return sft.max_steps * sft.per_device_train_batch_size * sft.gradient_accumulation_steps


def _training_seconds(layout: Layout, policy: Policy) -> float | None:
    """Seconds that a finished training of this very policy took on this machine."""
    try:
        manifest = json.loads(layout.train_manifest(policy.folder, policy.stage).read_bytes())
        record: dict[str, Any] = json.loads(layout.run_record(policy.folder).read_bytes())
        is_ours = manifest["fingerprint"] == policy.fingerprint and record["host"] == platform.node()
        return float(manifest["seconds"]) if is_ours else None
    except (OSError, KeyError, ValueError):
        return None


def noise_of(study: Study, layout: Layout) -> Noise | None:
    """Deviations of a finished study's arms from its baseline, pooled; None without two seeds of two arms."""
    scores = {name: _scores(study, layout, name) for name in study.arms}
    matched = all(arm.recipe.sft is not None and arm.recipe.sft.per_seed for arm in study.arms.values())
    theirs, parts = scores.pop(study.baseline), []
    for ours in scores.values():
        seeds = sorted(ours.keys() & theirs.keys())
        items = sorted({item for seed in seeds for side in (ours, theirs) for item in side[seed]})
        if len(seeds) < 2 or len(items) < 2:
            continue
        a, b = (_matrix(side, seeds, items) for side in (ours, theirs))
        found = deviations_of(a[0], b[0], matched_seeds=matched)
        per_sample = [np.nanmean(side[1]) if not np.isnan(side[1]).all() else 0.0 for side in (a, b)]
        on_means = sum(np.nanmean(side[1] / side[2]) if not np.isnan(side[1]).all() else 0.0 for side in (a, b))
        rest = max(0.0, found.pair_sd**2 - on_means)
        in_unit = all(np.nanmin(side[0]) >= 0 and np.nanmax(side[0]) <= 1 for side in (a, b))
        parts.append((found.seed_sd**2, found.item_sd**2, rest, sum(per_sample), in_unit))
    if not parts:
        return None
    seed, item, pair, sample, is_share = np.mean(np.array(parts, dtype=float), axis=0)
    weights = "the trained weights" if study.primary.over else "the finished runs"
    return Noise(
        source=f"deviations of {weights} of {study.id}",
        seed_sd=float(seed) ** 0.5,
        item_sd=float(item) ** 0.5,
        pair_sd=float(pair) ** 0.5,
        sample_sd=float(sample) ** 0.5,
        matched_seeds=matched,
        is_share=bool(is_share == 1),
    )


Scores = dict[str, tuple[float, float, float]]
"""Prompt -> mean, variance and number of its samples' scores; the variance of a single sample is NaN."""


def _scores(study: Study, layout: Layout, arm: str) -> dict[int, Scores]:
    """The finished seeds' scores in the primary metric."""
    primary = study.primary
    found: dict[int, Scores] = {}
    for seed in study.seeds:
        path = layout.scores(layout.run(arm, seed), primary.set)
        if path.is_file():
            chosen = [("mode", "=", primary.mode), ("metric", "=", primary.metric)]
            table = pq.read_table(path, columns=["prompt_id", "value"], filters=chosen)
            options = pc.VarianceOptions(ddof=1)
            kinds = [("value", "mean"), ("value", "variance", options), ("value", "count")]
            grouped = table.group_by("prompt_id").aggregate(kinds).to_pylist()
            found[seed] = {row["prompt_id"]: _three(row) for row in grouped}
    return found


def _three(row: dict[str, Any]) -> tuple[float, float, float]:
    mean, variance, count = (row[f"value_{kind}"] for kind in ("mean", "variance", "count"))
    return np.nan if mean is None else float(mean), np.nan if variance is None else float(variance), float(count)


def _matrix(scores: dict[int, Scores], seeds: list[int], items: list[str]) -> np.ndarray:
    """Means, variances and counts, shape (3, num_seeds, num_items); NaN where a prompt has none."""
    missing = (np.nan,) * 3
    return np.array([[scores[seed].get(item, missing) for item in items] for seed in seeds]).transpose(2, 0, 1)

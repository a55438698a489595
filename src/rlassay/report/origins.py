"""Where the numbers come from and what they cost: splits, sentinels, times, interruptions, commands."""

import hashlib
import json

import numpy as np

from rlassay.report.estimates import tidy
from rlassay.report.gather import Results, Row
from rlassay.report.provenance import Command, PolicyCost, PolicyFacts, PolicyResumes
from rlassay.report.reading import column_or_nan

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
        Command(target=f"{arm.label}, seed {seed}", command=again(layout.train_sentinel(layout.run(name, seed))))
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

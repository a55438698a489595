# pyright: basic
# Reads pandas frames, which ship no types.
"""The engines that sampled completions, and how far vLLM was from the trainer."""

import numpy as np

from rlassay.config.study import Study
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.report.gather import Results
from rlassay.report.read.scores import column_or_nan
from rlassay.report.typeset import listed, quoted


def engine_sentences(results: Results) -> str:
    """Who sampled with vLLM, and its gap to the trainer; empty where transformers sampled all completions."""
    study = results.study
    arms = [name for name, arm in study.arms.items() if arm.recipe.rl.engine.kind == "vllm"]
    answers = study.evaluation.engine.kind
    if not arms:
        return "" if answers == "transformers" else "RL sampled with transformers, the evaluation with vLLM."
    return f"RL sampled with vLLM{_where(study, arms)}, the evaluation with {_TITLES[answers]}. {_gap(results, arms)}"


_TITLES = {"transformers": "transformers", "vllm": "vLLM"}


def _where(study: Study, arms: list[str]) -> str:
    if len(arms) == len(study.arms):
        return ""
    return f" in {listed([quoted(study.arms[name].label) for name in arms])}, else with transformers"


def _gap(results: Results, arms: list[str]) -> str:
    """The gap over all steps of the finished runs, and its largest step."""
    folders = [folder for name in arms for folder in results.rows[name].folders.values()]
    gaps = {folder: column_or_nan(results.metrics[folder], SAMPLER_GAP) for folder in folders}
    known = {folder: values for folder, values in gaps.items() if not np.isnan(values).all()}
    if not known:
        return "No finished run has logged its gap to the trainer."
    steps = np.concatenate(list(known.values()))
    widest = max(known, key=lambda folder: float(np.nanmax(known[folder])))
    at = int(results.metrics[widest].index[int(np.nanargmax(known[widest]))])
    return (
        f"Its log-probs of the sampled tokens differed from the trainer's by {np.nanmean(steps):.2g} nats per token on "
        f"average, and by {np.nanmax(steps):.2g} at step {at} of {widest}, the most of all steps."
    )

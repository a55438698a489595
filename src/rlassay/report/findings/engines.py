# pyright: basic
# Reads pandas frames, which ship no types.
"""The engines that sampled completions, and how far vLLM was from the trainer."""

import numpy as np

from rlassay.config.study import Study
from rlassay.files import read_json
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.report.gather import Results
from rlassay.report.read.scores import column_or_nan
from rlassay.report.typeset import listed, quoted


def engine_sentences(results: Results) -> str:
    """Who sampled with vLLM, and its gap to the trainer; empty where transformers sampled all completions."""
    study = results.study
    arms = [name for name, arm in study.arms.items() if arm.recipe.rl.engine.kind == "vllm"]
    answers = study.evaluation.engine.kind
    evaluation = "transformers" if answers == "transformers" else _vllm(_that_answered(results))
    if not arms:
        return "" if answers == "transformers" else f"RL sampled with transformers, the evaluation with {evaluation}."
    sampler = f"{_vllm(_that_trained(results, arms))}{_where(study, arms)}"
    return f"RL sampled with {sampler}, the evaluation with {evaluation}. {_gap(results, arms)}"


def _vllm(versions: set[str]) -> str:
    """vLLM with its versions, if the results state them."""
    return " ".join(["vLLM", *([" or ".join(sorted(versions))] if versions else [])])


def _that_trained(results: Results, arms: list[str]) -> set[str]:
    folders = {folder for name in arms for folder in results.rows[name].folders.values()}
    manifests = [manifest for folder, manifest in results.manifests.items() if folder in folders]
    return {each["versions"]["vllm"] for each in manifests if "vllm" in each["versions"]}


def _that_answered(results: Results) -> set[str]:
    found = [read_json(results.layout.sampler(folder, name)) or {} for folder, name in results.scores]
    return {each["versions"]["vllm"] for each in found if each.get("engine") == "vllm"}


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

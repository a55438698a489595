"""The sentences on engines: who sampled with vLLM, and its gap to the trainer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rlassay.config.engine import VLLMEngine, VLLMSampler
from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.report.findings.engines import engine_sentences
from rlassay.report.gather import Results
from tests.report.by_hand import hand_results


def sampled(gaps: dict[str, list[list[float]]], evaluation: bool = True) -> Results:
    """Two arms x two seeds; those in `gaps` sampled with vLLM, and logged these gaps in each run."""
    results = hand_results({"base": np.ones((2, 2)), "accuracy_only": np.ones((2, 2)), "sft": np.ones((1, 2))})
    engine, study = VLLMSampler(kind="vllm"), results.study
    arms = {
        name: arm.model_copy(
            update={"recipe": arm.recipe.model_copy(update={"rl": arm.recipe.rl.model_copy(update={"engine": engine})})}
        )
        for name, arm in study.arms.items()
        if name in gaps
    }
    changes = {"evaluation": study.evaluation.model_copy(update={"engine": VLLMEngine(kind="vllm")})}
    study = study.model_copy(update={"arms": {**study.arms, **arms}, **(changes if evaluation else {})})
    logged = {
        folder: pd.DataFrame({SAMPLER_GAP: gaps[arm][place]}, index=pd.Index([1, 2], name="step"))
        for arm in gaps
        for place, folder in enumerate(results.rows[arm].folders.values())
    }
    return replace(results, study=study, metrics=logged)


def test_the_gap_is_the_mean_over_all_steps_and_names_the_worst_step():
    results = sampled({"base": [[0.002, 0.004], [0.001, 0.001]], "accuracy_only": [[0.002, 0.002], [0.03, 0.002]]})
    worst = list(results.rows["accuracy_only"].folders.values())[1]
    # .044 over 8 steps.
    assert engine_sentences(results) == (
        "RL sampled with vLLM, the evaluation with vLLM. Its log-probs of the sampled tokens differed from the "
        f"trainer's by 0.0055 nats per token on average, and by 0.03 at step 1 of {worst}, the most of all steps."
    )


def test_an_arm_with_an_engine_of_its_own_is_named():
    sentence = engine_sentences(sampled({"accuracy_only": [[0.5, np.nan], [0.5, 0.5]]}, evaluation=False))
    assert sentence.startswith(
        "RL sampled with vLLM in 'accuracy only', else with transformers, the evaluation with transformers. Its "
    )
    assert "by 0.5 nats per token on average" in sentence


def test_without_vllm_nothing_is_said():
    assert engine_sentences(sampled({}, evaluation=False)) == ""
    assert engine_sentences(sampled({})) == "RL sampled with transformers, the evaluation with vLLM."


def test_the_versions_of_vllm_are_named(tmp_path: Path):
    results = replace(sampled({"base": [[0.0, 0.0]] * 2}), layout=Layout(root=tmp_path))
    folders = list(results.rows["base"].folders.values())
    versions = ({"torch": "2.13.0", "vllm": "0.31.0"}, {"torch": "2.13.0", "vllm": "0.30.0"})
    results = replace(
        results, manifests={folder: {"versions": each} for folder, each in zip(folders, versions, strict=True)}
    )
    assert engine_sentences(results).startswith("RL sampled with vLLM 0.30.0 or 0.31.0 in ")
    for folder, name in results.scores:
        facts = {"engine": "vllm", "versions": {"torch": "2.13.0", "vllm": "0.31.0"}}
        path = results.layout.sampler(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)
    assert ", the evaluation with vLLM 0.31.0. Its" in engine_sentences(results)


def test_without_a_finished_run_there_is_no_gap():
    results = sampled({"base": [[np.nan, np.nan]] * 2})
    assert engine_sentences(results).endswith("No finished run has logged its gap to the trainer.")

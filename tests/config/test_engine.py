"""Engines: what vLLM cannot sample is refused before any job, and only what changes completions identifies results."""

from typing import Any

import pytest

from rlassay.config import Study, load_settings, load_study, settings_from_snakemake
from rlassay.config.engine import TransformersEngine, VLLMEngine, VLLMSampler
from rlassay.config.fingerprints import evaluation_id, rl_id
from tests.config.studies import problems, study

VLLM = {"kind": "vllm"}
HUB = {"kind": "hub", "name": "x/y-1B"}
FOR = "; set kind: transformers"
IN_RL = [
    (
        {"rl__engine": {**VLLM, "mode": "server"}},
        ["server_base_url: got None with mode server", "mode: server sends weights from GPU"],
    ),
    (
        {"rl__engine": {**VLLM, "mode": "server", "server_base_url": "localhost:8000"}, "gpus": 1},
        ["server_base_url: got 'localhost:8000' with mode server; expected an address such as http://localhost:8000"],
    ),
    ({"rl__engine": {**VLLM, "sleep_level": 2}}, ["sleep_level: 2 frees GPU memory, and gpus is 0; expected 0"]),
    (
        {"rl__engine": {**VLLM, "tensor_parallel_size": 2}, "gpus": 3},
        ["tensor_parallel_size: 2 does not divide the processes of a job, 3 (gpus"],
    ),
    ({"rl__engine": {**VLLM, "importance_sampling_clip_min": 3.0}}, ["clip_min: 3 is not below"]),
    (
        {"rl__engine": {**VLLM, "importance_sampling_mode": "token_truncate", "importance_sampling_clip_max": None}},
        ["importance_sampling_mode: token_truncate needs a bound"],
    ),
    (
        {"rl__engine": VLLM, "rl__loss_type": "vespo", "arms__dr_grpo__rl__loss_type": "vespo"},
        ["vespo takes importance_sampling_mode token_truncate or token_mask, got sequence_mask"],
    ),
    (
        {"rl__engine": VLLM, "rl__advantage": {"kind": "remax"}},
        ["the greedy completions of rl.advantage remax are sampled by transformers alone; set kind: transformers"],
    ),
    (
        {"rl__engine": VLLM, "model": {**HUB, "lora": {"load_in_4bit": True}}},
        ["model.lora.load_in_4bit is not available with it; set kind: transformers"],
    ),
    (
        {
            "rl__engine": {**VLLM, "mode": "server", "server_base_url": "http://x:1"},
            "gpus": 1,
            "model": {**HUB, "clips": {"show": "video"}},
        },
        ["rl.engine: vllm, but TRL sends its server images alone, and model.clips.show is video"],
    ),
    (
        {"evaluation__engine": {**VLLM, "tensor_parallel_size": 4}, "gpus": 2},
        ["evaluation.engine.tensor_parallel_size: 4 GPUs share a model, but gpus is 2; expected at most 2"],
    ),
    (
        {"evaluation__engine": {**VLLM, "tensor_parallel_size": 2}},
        ["evaluation.engine.tensor_parallel_size: 2 GPUs share a model, but gpus is 0; expected at most 1"],
    ),
    (
        {"evaluation__engine": VLLM, "evaluation__beams": {"num_beams": 4}},
        ["evaluation.engine: vllm searches no beams"],
    ),
]


@pytest.mark.parametrize(("edits", "expected"), IN_RL)
def test_what_vllm_cannot_sample_is_refused(edits: dict[str, Any], expected: list[str]):
    found = [each for each in problems(**edits) if "engine" in each]

    assert len(found) == len(expected), found
    for problem, part in zip(found, expected, strict=True):
        assert part in problem


def test_the_evaluation_says_that_it_asks_no_server():
    (problem,) = problems(evaluation__engine={**VLLM, "mode": "server"}, gpus=2)

    assert problem.startswith("evaluation.engine.mode: unknown key")
    assert problem.endswith("; it is an option of rl.engine: the evaluation opens vLLM in its own jobs")


def test_a_model_that_gpus_share_in_the_evaluation_has_them_in_one_job():
    whole = study(evaluation__engine=VLLM, gpus=4)
    shared = study(evaluation__engine={**VLLM, "tensor_parallel_size": 2}, gpus=4)

    assert [each.placed("generate").gpus for each in (whole, shared)] == [1, 2]
    assert [shared.ranks_of(stage) for stage in ("rl_train", "generate", "held_out_curve")] == [4, 1, 1]
    assert ids(shared)[1] != ids(whole)[1]
    assert ids(study(evaluation__engine={**VLLM, "tensor_parallel_size": 1}, gpus=4)) == ids(whole)


def ids(resolved: Study) -> tuple[str, str]:
    return rl_id(resolved, "base", 1), evaluation_id(resolved, resolved.arms["base"].recipe)


def test_the_default_engine_changes_no_fingerprint():
    named = study(rl__engine={"kind": "transformers"}, evaluation__engine={"kind": "transformers"})

    assert ids(named) == ids(study())
    assert ids(study(evaluation__top_k=0, evaluation__min_p=0.0)) == ids(study())


def test_an_engine_and_its_numerics_identify_results():
    plain = study(rl__engine=VLLM, evaluation__engine=VLLM)

    assert all(one != other for one, other in zip(ids(plain), ids(study()), strict=True))
    other = study(rl__engine={**VLLM, "importance_sampling_mode": "token_mask"}, evaluation__engine=VLLM)
    assert [one == two for one, two in zip(ids(other), ids(plain), strict=True)] == [False, True]
    other = study(rl__engine=VLLM, evaluation__engine={**VLLM, "max_model_length": 64})
    assert [one == two for one, two in zip(ids(other), ids(plain), strict=True)] == [True, False]
    assert ids(study(evaluation__top_k=5))[1] != ids(study())[1]


def test_where_and_how_long_it_samples_identifies_nothing():
    plain = study(rl__engine=VLLM, evaluation__engine=VLLM)
    placed = {**VLLM, "gpu_memory_utilization": 0.5}

    assert ids(study(rl__engine={**placed, "max_logp_difference": 0.01}, evaluation__engine=placed)) == ids(plain)


def test_an_engine_is_laid_over_a_study_and_its_scale():
    chosen = load_study("digits", "tiny", "vllm")

    assert chosen.id == "digits-tiny-vllm"
    assert chosen.uses_vllm
    assert chosen.evaluation.engine == VLLMEngine(kind="vllm")
    assert {arm.recipe.rl.engine for arm in chosen.arms.values()} == {VLLMSampler(kind="vllm")}
    assert load_study("digits", engine="vllm").id == "digits-vllm"


def test_an_engine_keeps_the_options_that_the_study_gives_it():
    own, other = (load_study("vllm_correction", "tiny", engine) for engine in ("vllm", "transformers"))

    assert own.evaluation.engine == VLLMEngine(kind="vllm", max_model_length=1024)
    assert other.evaluation.engine == TransformersEngine(kind="transformers")


def test_the_engine_is_a_setting():
    assert load_settings(engine="vllm").engine == "vllm"
    assert load_settings(engine="null").engine is None
    assert settings_from_snakemake({"study": "digits", "engine": "vllm"}).engine == "vllm"

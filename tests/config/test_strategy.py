"""A strategy that divides the policy is refused where something needs the whole of it."""

from typing import Any

import pytest

from rlassay.config.fingerprints import rl_id
from rlassay.report.findings.design import build_design
from tests.config.studies import problems, study

FSDP2: dict[str, Any] = {"strategy": "fsdp2", "processes": 2}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"processes": 1}, "strategy: fsdp2 divides the policy between processes, and each job has one"),
        (
            {"model": {"kind": "hub", "name": "any/model", "lora": {"load_in_4bit": True}}},
            "model.lora.load_in_4bit: true, but strategy is fsdp2",
        ),
        ({"rl__advantage": {"kind": "gae"}}, "rl.advantage: gae, but strategy is fsdp2"),
        ({"rl__sync_ref_model": True, "rl__beta": 0.1}, "rl.sync_ref_model: true, but strategy is fsdp2"),
        ({"sft__torch_compile": True}, "sft.torch_compile: true, but strategy is fsdp2"),
        ({"rl__optim": "adamw_bnb_8bit"}, "rl.optim: adamw_bnb_8bit, but strategy is fsdp2"),
        ({"rl__gradient_accumulation_steps": 2}, "2 does not divide steps_per_generation x num_iterations, 1"),
        ({"model": {"kind": "tiny_seq2seq"}}, "model: an encoder-decoder, but strategy is fsdp2"),
    ],
)
def test_what_needs_the_whole_policy_is_refused(edits: dict[str, Any], message: str):
    assert message in " ".join(problems(**FSDP2 | edits))


@pytest.mark.parametrize("strategy", ["deepspeed_zero2", "deepspeed_zero3"])
def test_deepspeed_is_refused_where_it_is_not_installed(strategy: str, monkeypatch: pytest.MonkeyPatch):
    edits = {"strategy": strategy, "processes": 2}
    installed: list[str] = ["deepspeed"]
    monkeypatch.setattr("rlassay.config.checks.strategy.find_spec", lambda name: name if name in installed else None)
    assert study(**edits).strategy == strategy
    adapted: dict[str, Any] = {"model__lora": {"r": 2}}
    assert study(**FSDP2 | adapted).strategy == "fsdp2"
    if strategy == "deepspeed_zero2":
        assert study(**edits, **adapted).strategy == strategy
    else:
        (problem,) = problems(**edits, **adapted)
        assert "under which adapters of a vision tower got no gradients" in problem
    assert study(**edits, rl__dynamic_sampling={}).strategy == strategy
    assert study(**edits, rl__replay={}).strategy == strategy
    budget = {"rl__max_tokens_per_micro_batch": 4096}
    assert study(**FSDP2 | budget).strategy == "fsdp2"
    assert "rl.max_tokens_per_micro_batch" in " ".join(problems(**edits, **budget))
    offloading = {"sft__activation_offloading": True, "gpus": 2, "processes": 1}
    assert study(strategy="fsdp2", **offloading).strategy == "fsdp2"
    assert "sft.activation_offloading: true, but strategy is" in " ".join(problems(strategy=strategy, **offloading))
    installed.clear()
    (problem,) = problems(**edits)
    assert problem.startswith(f"strategy: {strategy}, but deepspeed is not installed in ")
    assert "pip install 'rlassay[deepspeed]'" in problem


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    (problem,) = problems(strategy="fsdp", processes=2)
    assert "strategy" in problem
    for known in ("ddp", "fsdp2", "deepspeed_zero2", "deepspeed_zero3"):
        assert known in problem


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"gpus": 0, "processes": 2}, "cpu_offload: true, but gpus is 0, and it keeps in the machine's memory what"),
        ({"gpus": 2, "strategy": "ddp"}, "cpu_offload: true, but strategy is ddp, which keeps everything on each GPU"),
    ],
)
def test_offload_without_anything_to_move_is_refused(edits: dict[str, Any], message: str):
    (problem,) = problems(**{"strategy": "fsdp2", "cpu_offload": True} | edits)
    assert problem.startswith(message)


def test_precision_and_offload_identify_results():
    arm = next(iter(study().arms))
    plain = study(**FSDP2 | {"gpus": 2, "processes": 1})
    ids = {rl_id(plain.model_copy(update=each), arm, 1) for each in ({}, {"bf16": False}, {"cpu_offload": True})}
    assert len(ids) == 3


def test_the_report_names_the_strategy():
    assert build_design(study(**FSDP2)).sentence.endswith(" Jobs trained with strategy fsdp2.")
    options = study(**FSDP2 | {"gpus": 2, "processes": 1, "cpu_offload": True, "bf16": False})
    assert build_design(options).sentence.endswith(
        " Jobs trained with strategy fsdp2, cpu_offload true and precision float32."
    )
    assert "Jobs trained with" not in build_design(study(processes=2)).sentence

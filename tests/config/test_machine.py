"""Settings that need a GPU, a library, a compiler or several processes are refused where these are absent."""

from typing import Any

import pytest

from rlassay.config.checks import machine
from rlassay.config.fingerprints import rl_id
from rlassay.report.findings.design import build_design
from tests.config.studies import problems, study

HUB: dict[str, Any] = {"kind": "hub", "name": "some/model"}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"rl__optim": "adamw_bnb_8bit"}, "rl.optim: adamw_bnb_8bit, but gpus is 0"),
        ({"rl__optim": "adamw_bnb_8bit", "gpus": 1}, "run `pip install bitsandbytes`, or set adamw_torch_fused"),
        ({"sft__use_liger_kernel": True, "gpus": 1}, "liger-kernel is not installed"),
        ({"rl__torch_compile": True}, "rl.torch_compile: true, but there is no C++ compiler"),
        ({"sft__activation_offloading": True}, "moves activations off a GPU"),
        ({"model": HUB | {"attn_implementation": "flash_attention_2"}, "gpus": 1}, "run `pip install flash-attn`"),
        ({"model": HUB | {"attn_implementation": "kernels-community/flash-attn2"}}, "but gpus is 0"),
        ({"model": HUB | {"attn_implementation": "flash"}}, "attn_implementation"),
        ({"model": HUB | {"attn_implementation": "flash_attention_3"}, "gpus": 1}, "run `pip install flash-attn-3`"),
        ({"model": HUB | {"attn_implementation": "kernels-community/flash-attn2"}, "gpus": 1}, "pip install kernels`"),
        ({"model": HUB | {"lora": {"load_in_4bit": True}}}, "model.lora.load_in_4bit: true, but gpus is 0"),
        ({"model": HUB | {"lora": {"load_in_4bit": True}}, "gpus": 1}, "run `pip install bitsandbytes`, or set false"),
    ],
)
def test_what_the_machine_lacks_is_refused(edits: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "find_spec", lambda package: None)
    monkeypatch.setattr(machine, "which", lambda program: None)
    assert message in " ".join(problems(**edits))


def test_what_is_there_is_taken_and_named_in_the_report(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "find_spec", lambda package: object())
    assert "Jobs trained with" not in build_design(study()).sentence
    edits = {"gpus": 2, "rl__optim": "adamw_bnb_8bit"}
    sentence = build_design(study(**edits, rl__max_tokens_per_micro_batch=4096)).sentence
    assert sentence.endswith(" Jobs trained with rl.optim adamw_bnb_8bit and rl.max_tokens_per_micro_batch 4096.")


@pytest.mark.parametrize(
    ("edits", "named"),
    [
        ({"model": HUB | {"attn_implementation": "flash_attention_2"}}, "model.attn_implementation flash_attention_2"),
        ({"model": HUB | {"lora": {"load_in_4bit": True}}}, "model.lora.load_in_4bit true"),
        ({"sft__optim": "paged_adamw_8bit"}, "sft.optim paged_adamw_8bit"),
        ({"rl__use_liger_kernel": True}, "rl.use_liger_kernel true"),
        ({"rl__torch_compile": True}, "rl.torch_compile true"),
        ({"rl__gradient_checkpointing": True}, "rl.gradient_checkpointing true"),
        ({"sft__activation_offloading": True}, "sft.activation_offloading true"),
    ],
)
def test_each_means_of_speed_is_named_in_the_report(edits: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "find_spec", lambda package: object())
    monkeypatch.setattr(machine, "which", lambda program: program)
    assert build_design(study(gpus=1, **edits)).sentence.endswith(f" Jobs trained with {named}.")


def test_a_token_budget_enters_the_identity_of_results_only_where_it_is_set():
    plain = rl_id(study(), "base", 1)
    assert rl_id(study(rl__max_tokens_per_micro_batch=None), "base", 1) == plain
    assert rl_id(study(rl__max_tokens_per_micro_batch=512), "base", 1) != plain

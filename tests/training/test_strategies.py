"""Jobs whose processes divide the policy, on CPU by gloo: whole results, and exact ones after a rank was killed."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlassay.config import Study
from rlassay.models.policy import load_policy
from rlassay.training import CreditGRPOTrainer
from rlassay.training.rl import grpo_arguments
from rlassay.training.scale.strategy import StrategyCheck, strategy_arguments
from rlassay.training.sft import sft_arguments
from tests.launcher import Launcher, wait_until
from tests.training.short_run import (
    MAX_STEPS,
    RUN,
    fresh_layout,
    has_logged,
    load_short,
    policy_of,
    proof,
    rollouts,
    timeless_metrics,
)
from tests.training.test_shared_jobs import HALF, fork_ranks, layout_of, ranks_below, start, warm_start
from tests.training.tiny_lm import make_trainer

CREDIT = [{"kind": "attention_weights"}, {"kind": "entropy_filter"}, {"kind": "perception_filter"}]
GUARD = {"min_entropy": 0.0, "max_kl": 100.0}
DIVIDED: dict[str, Any] = HALF | {"strategy": "fsdp2", "credit": CREDIT, "rl__beta": 0.01, "evaluation__every": 3}
DIVIDED |= {"rl__guard": GUARD}


def trained(launcher: Launcher, folder: Path, edits: dict[str, Any]) -> tuple[Path, Study]:
    """The folder with the results of a warm start and a run that nothing disturbs, and their study."""
    study = load_short(folder, **edits)
    fresh_layout(folder / "results")
    fork_ranks(launcher, folder, "sft_train", warm_start(study))
    fork_ranks(launcher, folder, "rl_train", RUN)
    return folder, study


def check_whole(folder: Path, study: Study) -> None:
    """Each result is a whole policy that `from_pretrained` loads, and training has moved it."""
    layout, recipe = layout_of(folder), policy_of(study).recipe
    begun = json.loads(layout.train_manifest(warm_start(study), "sft").read_text())
    weights = [layout.root / warm_start(study) / begun["weights"], layout.root / RUN / proof(layout)["weights"]]
    weights += sorted(layout.intermediate(RUN).glob("checkpoint-*"))
    assert [path.name for path in weights[2:]] == ["checkpoint-3", "checkpoint-6"]
    policies = [dict(load_policy(recipe.model, path)[0].named_parameters()) for path in weights]
    for path, policy in zip(weights, policies, strict=True):
        saved = load_file(path / "model.safetensors")
        assert saved.keys() >= policy.keys()
        for name, values in policy.items():
            assert torch.equal(values.detach(), saved[name]), name
    moved = max((policies[1][name] - values).abs().max().item() for name, values in policies[0].items())
    assert moved > 1e-3
    assert len(timeless_metrics(layout)) == MAX_STEPS
    assert all("combined_token_fraction" in line and "kl" in line for line in timeless_metrics(layout))


def check_resumed(launcher: Launcher, folder: Path, study: Study, other: Path, edits: dict[str, Any]) -> None:
    """In the folder `other` a rank of the same run is killed; the job ends, and resumes to the same results."""
    load_short(other, **edits)
    layout, policy = fresh_layout(other / "results"), warm_start(study)
    (layout.root / policy).parent.mkdir()
    os.symlink(layout_of(folder).root / policy, layout.root / policy)
    job = start(other, "rl_train", "--policy", RUN)
    wait_until(partial(has_logged, layout, 3), 180)
    os.kill(ranks_below(job.pid)["1"], signal.SIGKILL)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 1, output
    in_parts = {path.name for path in layout.state(RUN).glob("checkpoints/*/optimizer_0/*.distcp")}
    assert in_parts == ({"__0_0.distcp", "__1_0.distcp"} if edits["strategy"] == "fsdp2" else set())
    fork_ranks(launcher, other, "rl_train", RUN)
    assert proof(layout)["resumes"][0]["step"] >= 2
    assert proof(layout)["sha256"] == proof(layout_of(folder))["sha256"]
    assert timeless_metrics(layout) == timeless_metrics(layout_of(folder))
    assert rollouts(layout) == rollouts(layout_of(folder))


def check_in_bfloat16(launcher: Launcher, folder: Path, strategy: str, saved: torch.dtype) -> None:
    """A study without token credit trains in bfloat16, and its weights are saved as `saved`."""
    edits: dict[str, Any] = HALF | {"strategy": strategy, "bf16": True, "rl__max_steps": 2, "rl__save_steps": 2}
    _, study = trained(launcher, folder, edits)
    layout = layout_of(folder)
    first, _ = timeless_metrics(layout)
    assert first["grad_norm"] > 0
    # An almost untrained model has the entropy of 300 tokens, ln 300 = 5.70, less what it has learnt.
    assert 5.4 < first["entropy"] < 5.7
    begun = json.loads(layout.train_manifest(warm_start(study), "sft").read_text())
    paths = (layout.root / warm_start(study) / begun["weights"], layout.root / RUN / proof(layout)["weights"])
    before, after = (load_file(path / "model.safetensors") for path in paths)
    assert {each.dtype for each in after.values()} == {saved}
    assert max((after[name].float() - each.float()).abs().max().item() for name, each in before.items()) > 1e-3


@pytest.fixture(scope="module")
def undisturbed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    return trained(launcher, tmp_path_factory.mktemp("undisturbed"), DIVIDED)


def test_the_results_are_whole_policies(undisturbed: tuple[Path, Study]):
    check_whole(*undisturbed)


def test_a_plain_study_trains_in_bfloat16_and_keeps_weights_in_their_own_type(launcher: Launcher, tmp_path: Path):
    check_in_bfloat16(launcher, tmp_path, "fsdp2", torch.float32)


def test_a_killed_rank_ends_the_job_which_resumes_exactly(
    undisturbed: tuple[Path, Study], launcher: Launcher, tmp_path: Path
):
    check_resumed(launcher, *undisturbed, tmp_path, DIVIDED)


def test_offload_is_added_to_the_settings_of_each_strategy():
    names = ("fsdp2", "deepspeed_zero2", "deepspeed_zero3")
    model: Any = torch.nn.Linear(2, 3)
    model._no_split_modules = ()  # as models of transformers have it
    plain = {each: strategy_arguments(each, model, bf16=True) for each in names}
    moved = {each: strategy_arguments(each, model, bf16=True, cpu_offload=True) for each in names}
    assert all(each["bf16"] for each in (*plain.values(), *moved.values()))
    fsdp, zero2, zero3 = (moved[each] for each in names)
    assert fsdp["fsdp_config"] == {**plain["fsdp2"]["fsdp_config"], "cpu_offload": True}
    to_host = {"device": "cpu", "pin_memory": True}
    assert zero2["deepspeed"]["zero_optimization"] == {"stage": 2, "offload_optimizer": to_host}
    divided = plain["deepspeed_zero3"]["deepspeed"]["zero_optimization"]
    both = {"offload_optimizer": to_host, "offload_param": to_host}
    assert zero3["deepspeed"]["zero_optimization"] == {**divided, **both}


@pytest.mark.parametrize(("chosen", "on_cpu", "used"), [(None, True, False), (True, True, True), (False, True, False)])
def test_the_precision_reaches_both_trainers(chosen: bool | None, on_cpu: bool, used: bool, tmp_path: Path):
    study = load_short(tmp_path, **({} if chosen is None else {"bf16": chosen}))
    recipe, shared = policy_of(study).recipe, strategy_arguments("ddp", None, bf16=study.bf16)
    assert recipe.sft is not None
    assert sft_arguments(recipe.sft, 1, tmp_path, shared, on_cpu=on_cpu).bf16 is used
    assert grpo_arguments(recipe, 1, tmp_path, shared, on_cpu=on_cpu).bf16 is used


def test_a_model_that_was_not_divided_is_refused_when_training_begins(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path)
    trainer.add_callback(StrategyCheck("fsdp2", trainer))
    with pytest.raises(RuntimeError, match="fsdp2, but the model is a LlamaForCausalLM, which is trained by ddp: "):
        trainer.train()

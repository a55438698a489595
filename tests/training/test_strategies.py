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
from rlassay.training.scale.strategy import StrategyCheck
from tests.training.launcher import wait_until
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
from tests.training.test_shared_jobs import HALF, layout_of, ranks_below, run, start, warm_start
from tests.training.tiny_lm import make_trainer

CREDIT = [{"kind": "attention_weights"}, {"kind": "entropy_filter"}, {"kind": "perception_filter"}]
GUARD = {"min_entropy": 0.0, "max_kl": 100.0}
DIVIDED: dict[str, Any] = HALF | {"strategy": "fsdp2", "credit": CREDIT, "rl__beta": 0.01, "evaluation__every": 3}
DIVIDED |= {"rl__guard": GUARD}


def trained(folder: Path, edits: dict[str, Any]) -> tuple[Path, Study]:
    """The folder with the results of a warm start and a run that nothing disturbs, and their study."""
    study = load_short(folder, **edits)
    fresh_layout(folder / "results")
    run(folder, "sft_train", "--policy", warm_start(study))
    run(folder, "rl_train", "--policy", RUN)
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


def check_resumed(folder: Path, study: Study, other: Path, edits: dict[str, Any]) -> None:
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
    run(other, "rl_train", "--policy", RUN)
    assert proof(layout)["resumes"][0]["step"] >= 2
    assert proof(layout)["sha256"] == proof(layout_of(folder))["sha256"]
    assert timeless_metrics(layout) == timeless_metrics(layout_of(folder))
    assert rollouts(layout) == rollouts(layout_of(folder))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    return trained(tmp_path_factory.mktemp("undisturbed"), DIVIDED)


def test_the_results_are_whole_policies(undisturbed: tuple[Path, Study]):
    check_whole(*undisturbed)


def test_a_killed_rank_ends_the_job_which_resumes_exactly(undisturbed: tuple[Path, Study], tmp_path: Path):
    check_resumed(*undisturbed, tmp_path, DIVIDED)


def test_a_model_that_was_not_divided_is_refused_when_training_begins(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path)
    trainer.add_callback(StrategyCheck("fsdp2", trainer))
    with pytest.raises(RuntimeError, match="fsdp2, but the model is a LlamaForCausalLM, which is trained by ddp: "):
        trainer.train()

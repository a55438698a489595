"""Adapters whose base model is divided between processes by FSDP2: whole results, and exact ones after a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from rlassay.config import Study
from rlassay.models.policy import build_policy, load_policy, training_rows
from tests.launcher import Launcher
from tests.training.short_run import MAX_STEPS, RUN, fresh_layout, load_short, policy_of, proof, timeless_metrics
from tests.training.test_shared_jobs import HALF, fork_ranks, layout_of, warm_start, weights_of
from tests.training.test_strategies import DIVIDED, check_resumed, trained

ADAPTED: dict[str, Any] = DIVIDED | {"model__lora": {"r": 4}}


def check_adapters(folder: Path, study: Study) -> None:
    """The warm start is a merged model; the run and its checkpoints are adapters on it, which training has moved."""
    layout, recipe = layout_of(folder), policy_of(study).recipe
    begun = json.loads(layout.train_manifest(warm_start(study), "sft").read_text())
    base = layout.root / warm_start(study) / begun["weights"]
    assert (base / "config.json").exists()
    paths = [*sorted(layout.intermediate(RUN).glob("checkpoint-*")), layout.root / RUN / proof(layout)["weights"]]
    assert [path.name for path in paths[:-1]] == ["checkpoint-3", "checkpoint-6"]
    updates = [adapter_of(recipe.model, path, base) for path in paths]
    for name, values in updates[-1].items():
        assert values.abs().max() > 1e-3, name  # B begins at 0, A at random
    moved = [(updates[-1][name] - values).abs().max().item() for name, values in updates[0].items()]
    assert max(moved) > 1e-3
    metrics = timeless_metrics(layout)
    assert len(metrics) == MAX_STEPS
    # The reference is the policy without adapters, which begin as no change.
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert metrics[-1]["kl"] > 1e-3


def adapter_of(model: Any, path: Path, base: Path) -> dict[str, torch.Tensor]:
    """The adapters that evaluation loads from `path`, which are those saved there, on the weights saved in `base`."""
    policy = load_policy(model, path)[0]
    assert isinstance(policy, PeftModel)
    values = {name.replace(".default", ""): each.detach() for name, each in policy.named_parameters()}
    saved = load_file(path / "adapter_model.safetensors")
    assert {name for name in values if ".lora_" in name} == saved.keys()
    for name, each in saved.items():
        assert torch.equal(values[name], each), name
    merged = load_file(base / "model.safetensors")
    for name, each in policy.get_base_model().named_parameters():
        if ".lora_" not in name:
            assert torch.equal(each.detach(), merged[name.replace(".base_layer", "")]), name
    return saved


def check_adapters_in_bfloat16(launcher: Launcher, folder: Path, strategy: str) -> None:
    """A hub model with weights in bfloat16 trains with adapters, computing in bfloat16."""
    parts: Any = build_policy(policy_of(load_short(folder)).recipe.model, training_rows(fresh_layout(folder / "built")))
    for part in parts:
        part.save_pretrained(folder / "model")
    model = {"kind": "hub", "name": str(folder / "model"), "dtype": "bfloat16", "lora": {"r": 4}}
    edits: dict[str, Any] = HALF | {"strategy": strategy, "bf16": True, "rl__max_steps": 2, "rl__save_steps": 2}
    trained(launcher, folder, edits | {"model": model})
    layout = layout_of(folder)
    first, last = timeless_metrics(layout)
    assert first["grad_norm"] > 0
    assert last["kl"] > 0
    saved = load_file(layout.root / RUN / proof(layout)["weights"] / "adapter_model.safetensors")
    assert all(each.abs().max() > 1e-3 for each in saved.values())


@pytest.fixture(scope="module")
def undisturbed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    return trained(launcher, tmp_path_factory.mktemp("undisturbed"), ADAPTED)


def test_the_results_are_whole_adapters_on_a_merged_warm_start(undisturbed: tuple[Path, Study]):
    check_adapters(*undisturbed)


def test_the_warm_start_is_that_of_ddp(undisturbed: tuple[Path, Study], launcher: Launcher, tmp_path: Path):
    folder, study = undisturbed
    whole = load_short(tmp_path, **ADAPTED | {"strategy": "ddp"})
    fresh_layout(tmp_path / "results")
    fork_ranks(launcher, tmp_path, "sft_train", warm_start(whole))
    expected = weights_of(layout_of(tmp_path), warm_start(whole), "sft")
    found = weights_of(layout_of(folder), warm_start(study), "sft")
    assert found.keys() >= expected.keys()  # a tied head has a copy
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-4, msg=name)


def test_a_killed_rank_ends_the_job_which_resumes_exactly(
    undisturbed: tuple[Path, Study], launcher: Launcher, tmp_path: Path
):
    check_resumed(launcher, *undisturbed, tmp_path, ADAPTED)


def test_a_model_in_bfloat16_trains(launcher: Launcher, tmp_path: Path):
    check_adapters_in_bfloat16(launcher, tmp_path, "fsdp2")

"""DeepSpeed's ZeRO trains what DDP trains, on CPU by gloo; a job whose rank was killed resumes exactly."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.config import Study
from tests.contract.test_processes import check_adapters_alike, check_trained_alike, credited
from tests.launcher import Launcher
from tests.training.short_run import proof, timeless_metrics
from tests.training.test_divided_adapters import ADAPTED, check_adapters, check_adapters_in_bfloat16
from tests.training.test_shared_jobs import layout_of
from tests.training.test_strategies import DIVIDED, check_in_bfloat16, check_resumed, check_whole, trained

pytestmark = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="DeepSpeed is not installed: make .venv-vllm, then make test"
)
STRATEGIES = ("deepspeed_zero2", "deepspeed_zero3")


@pytest.fixture(scope="module")
def whole(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of training on two processes by DDP."""
    return credited(launcher.run_ranks, tmp_path_factory.mktemp("whole") / "ddp", 2)[0]


def trained_and_resumed(launcher: Launcher, tmp_path: Path, edits: dict[str, Any]) -> tuple[Path, Study]:
    """An undisturbed run and its study, to which a run that was killed and resumed is equal."""
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    undisturbed = trained(launcher, tmp_path / "undisturbed", edits)
    check_resumed(launcher, *undisturbed, tmp_path / "killed", edits)
    return undisturbed


@pytest.mark.parametrize("options", [(), ("offload",)], ids=" ".join)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_credit_and_weights_are_those_of_ddp(
    strategy: str, options: tuple[str, ...], whole: dict[str, Any], launcher: Launcher, tmp_path: Path
):
    check_trained_alike(launcher, tmp_path, (strategy, *options), whole)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_plain_study_trains_in_bfloat16(strategy: str, launcher: Launcher, tmp_path: Path):
    check_in_bfloat16(launcher, tmp_path, strategy, torch.bfloat16)
    assert proof(layout_of(tmp_path))["versions"]["deepspeed"] == version("deepspeed")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_are_whole_policies_also_after_a_rank_was_killed(strategy: str, launcher: Launcher, tmp_path: Path):
    check_whole(*trained_and_resumed(launcher, tmp_path, DIVIDED | {"strategy": strategy}))


def test_adapters_train_as_by_ddp(launcher: Launcher, tmp_path: Path):
    check_adapters_alike(launcher, tmp_path, "deepspeed_zero2")


def test_adapters_are_whole_also_after_a_rank_was_killed(launcher: Launcher, tmp_path: Path):
    check_adapters(*trained_and_resumed(launcher, tmp_path, ADAPTED | {"strategy": "deepspeed_zero2"}))


def test_adapters_train_in_bfloat16(launcher: Launcher, tmp_path: Path):
    check_adapters_in_bfloat16(launcher, tmp_path, "deepspeed_zero2")


@pytest.mark.parametrize(
    ("choice", "counted", "strategy"),
    [
        ("dynamic_sampling", "dropped_tokens", "deepspeed_zero2"),
        ("dynamic_sampling", "dropped_tokens", "deepspeed_zero3"),
        ("replay", "replayed_fraction", "deepspeed_zero2"),
        ("replay", "replayed_fraction", "deepspeed_zero3"),
    ],
)
def test_a_choice_of_groups_resumes_exactly_after_a_rank_was_killed(
    choice: str, counted: str, strategy: str, launcher: Launcher, tmp_path: Path
):
    edits = DIVIDED | {"strategy": strategy, f"rl__{choice}": {}}
    folder, _ = trained_and_resumed(launcher, tmp_path, edits)
    assert any(line[f"{choice}/{counted}"] > 0 for line in timeless_metrics(layout_of(folder)))

"""Credit, gradients and training do not depend on how many processes share a generation batch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.models.tiny import build_tiny_vlm
from tests.contract.clip_step import COMPLETIONS, gradients
from tests.contract.one_batch import VALUES
from tests.launcher import Launcher
from tests.models.hubs import SMALLEST, TEXTS

ROOT = Path(__file__).parents[2]
RunRanks = Callable[[str, list[str], int, Path], None]
"""Runs a module with arguments on so many processes, with a log."""


def by_torchrun(module: str, arguments: list[str], processes: int, log: Path) -> None:
    """Start a module's processes as a user does: each imports the libraries itself, with hashes of its own."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}  # by gloo
    with log.open("w") as printed:
        command = [*launch, "-m", module, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=printed, stderr=printed, timeout=600, check=False
        )
    assert done.returncode == 0, log.read_text()[-3000:]


def credited(run_ranks: RunRanks, folder: Path, processes: int, *options: str) -> list[dict[str, Any]]:
    """The results of each process."""
    folder.mkdir()
    arguments = [str(folder), str(len(VALUES) // processes), *options]
    run_ranks("tests.contract.one_batch", arguments, processes, folder / "log")
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def check_trained_alike(launcher: Launcher, folder: Path, options: tuple[str, ...], whole: dict[str, Any]) -> None:
    """Two processes with these options give the credit and the weights of `whole`."""
    for divided in credited(launcher.run_ranks, folder / "divided", 2, *options):
        assert divided["weights"].keys() == whole["weights"].keys()
        for name, values in whole["weights"].items():
            torch.testing.assert_close(divided["weights"][name], values, rtol=1e-5, atol=1e-5, msg=name)
        for name in ("sensitivity_score_mean", "combined_token_fraction", "attention/late/mdi"):
            assert divided["metrics"][name] == pytest.approx(whole["metrics"][name], rel=1e-5)
        assert divided["kl"] == pytest.approx(whole["kl"], rel=1e-5)


def check_gradients(launcher: Launcher, folder: Path, maker: str) -> None:
    """Two processes have the gradients of one, for the trainer that `maker` makes."""
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    arguments = [maker, str(folder / "two"), str(COMPLETIONS // 2)]
    launcher.run_ranks("tests.contract.clip_step", arguments, 2, folder / "log")
    first, second = (torch.load(folder / f"two/{rank}.pt") for rank in range(2))
    alone = gradients(maker, folder / "one", COMPLETIONS)
    assert first.keys() == second.keys() == alone.keys()
    largest = max(float(each.abs().max()) for each in alone.values())
    assert largest > 1e-3
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-3, atol=1e-4 * largest, msg=name)


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of training on two processes by DDP."""
    return credited(by_torchrun, tmp_path_factory.mktemp("whole") / "ddp", 2)


def test_two_processes_give_the_gradients_of_one_with_clips(launcher: Launcher, tmp_path: Path):
    check_gradients(launcher, tmp_path, "tests.training.test_clips:clip_trainer")


def test_two_processes_give_the_credit_of_one_and_train_as_one_that_accumulates_twice_as_much(
    ddp: list[dict[str, Any]], launcher: Launcher, tmp_path: Path
):
    (alone,) = credited(launcher.run_ranks, tmp_path / "one", 1)
    first, second = ddp
    # Both processes have a part of the group in the middle.
    width = alone["advantages"].shape[1]
    parts = [
        torch.nn.functional.pad(each["advantages"], (0, width - each["advantages"].shape[1]))
        for each in (first, second)
    ]
    torch.testing.assert_close(torch.cat(parts), alone["advantages"], rtol=1e-4, atol=1e-5)
    assert alone["advantages"].abs().sum() > 0
    for name in ("sensitivity_score_mean", "combined_token_fraction", "scaling_factor_mean", "attention/late/mdi"):
        assert first["metrics"][name] == second["metrics"][name] == pytest.approx(alone["metrics"][name], rel=1e-4)
    moved = 0.0
    for name, start in build_tiny_vlm(SMALLEST, TEXTS)[0].named_parameters():
        trained = alone["weights"][name]
        moved = max(moved, (trained - start).abs().max().item() if "lm_head" not in name else 0.0)
        torch.testing.assert_close(first["weights"][name], trained, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(first["weights"][name], second["weights"][name]), name
    assert moved > 1e-3


def check_adapters_alike(launcher: Launcher, folder: Path, strategy: str) -> None:
    """Adapters that do not begin at 0, with a KL to the model without them, train as by DDP."""
    whole = credited(launcher.run_ranks, folder / "whole", 2, "ddp", "lora")[0]
    adapters = {name: moved for name, moved in whole["moved"].items() if ".lora_" in name}
    assert adapters
    assert min(adapters.values()) > 1e-3
    assert not any(moved for name, moved in whole["moved"].items() if name not in adapters)
    assert min(whole["kl"]) > 1e-3
    check_trained_alike(launcher, folder, (strategy, "lora"), whole)


def test_adapters_on_a_divided_model_train_as_on_a_whole_one(launcher: Launcher, tmp_path: Path):
    check_adapters_alike(launcher, tmp_path, "fsdp2")


@pytest.mark.parametrize("options", [("fsdp2",), ("fsdp2", "offload"), ("ddp", "60"), ("fsdp2", "60")], ids=" ".join)
def test_neither_the_division_of_the_policy_nor_that_of_micro_batches_changes_what_is_trained(
    options: tuple[str, ...], ddp: list[dict[str, Any]], launcher: Launcher, tmp_path: Path
):
    check_trained_alike(launcher, tmp_path, options, ddp[0])

"""Credit, gradients and training do not depend on how many processes share a generation batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.models.tiny import build_tiny_vlm
from tests.contract.clip_step import COMPLETIONS, gradients
from tests.contract.one_batch import VALUES
from tests.models.hubs import SMALLEST, TEXTS

ROOT = Path(__file__).parents[2]


def launched(folder: Path, processes: int, module: str, *arguments: str) -> list[dict[str, Any]]:
    """The results of each process."""
    program = ["-m", module, *arguments]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}  # by gloo
    done = subprocess.run(
        [*launch, *program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def credited(folder: Path, processes: int, *options: str) -> list[dict[str, Any]]:
    folder.mkdir()
    per_process = str(len(VALUES) // processes)
    return launched(folder, processes, "tests.contract.one_batch", str(folder), per_process, *options)


def check_trained_alike(folder: Path, options: tuple[str, ...], whole: dict[str, Any]) -> None:
    """Two processes with these options give the credit and the weights of `whole`."""
    for divided in credited(folder / "divided", 2, *options):
        assert divided["weights"].keys() == whole["weights"].keys()
        for name, values in whole["weights"].items():
            torch.testing.assert_close(divided["weights"][name], values, rtol=1e-5, atol=1e-5, msg=name)
        for name in ("sensitivity_score_mean", "combined_token_fraction", "attention/late/mdi"):
            assert divided["metrics"][name] == pytest.approx(whole["metrics"][name], rel=1e-5)


def check_gradients(folder: Path, maker: str) -> None:
    """Two processes have the gradients of one, for the trainer that `maker` makes."""
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    program = ("tests.contract.clip_step", maker, str(folder / "two"), str(COMPLETIONS // 2))
    first, second = launched(folder / "two", 2, *program)
    alone = gradients(maker, folder / "one", COMPLETIONS)
    assert first.keys() == second.keys() == alone.keys()
    largest = max(float(each.abs().max()) for each in alone.values())
    assert largest > 1e-3
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-3, atol=1e-4 * largest, msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes train by DDP."""
    return credited(tmp_path_factory.mktemp("whole") / "ddp", 2)[0]


def test_two_processes_give_the_gradients_of_one_with_clips(tmp_path: Path):
    check_gradients(tmp_path, "tests.training.test_clips:clip_trainer")


def test_two_processes_give_the_credit_of_one_and_train_as_one_that_accumulates_twice_as_much(tmp_path: Path):
    (alone,) = credited(tmp_path / "one", 1)
    first, second = credited(tmp_path / "two", 2)
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


@pytest.mark.parametrize("options", [("fsdp2",), ("fsdp2", "offload"), ("ddp", "60"), ("fsdp2", "60")], ids=" ".join)
def test_neither_the_division_of_the_policy_nor_that_of_micro_batches_changes_what_is_trained(
    options: tuple[str, ...], whole: dict[str, Any], tmp_path: Path
):
    check_trained_alike(tmp_path, options, whole)

"""The choice of groups and the advantages do not depend on how many processes share a generation batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launcher import Launcher
from tests.training.algorithms.spread import COMPLETIONS


def launched(launcher: Launcher, folder: Path, processes: int) -> list[dict[str, Any]]:
    """The results of each process."""
    folder.mkdir()
    arguments = [str(folder), str(COMPLETIONS // processes)]
    launcher.run_ranks("tests.training.algorithms.spread", arguments, processes, folder / "log")
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


OF_ROUNDS = ("completions/", "dynamic_sampling/", "sampled_", "num_tokens")
"""Metrics of all that was sampled: two processes sample an even number of groups in each round, one samples any."""


def test_two_processes_have_the_groups_and_advantages_of_one_and_resume_exactly(launcher: Launcher, tmp_path: Path):
    (alone,) = launched(launcher, tmp_path / "one", 1)
    del alone["weights"]
    first, second = launched(launcher, tmp_path / "two", 2)
    _resumes_exactly(first.pop("weights"), second.pop("weights"))
    for name, expected in alone.items():
        for metric, value in first[name]["metrics"].items():
            same = pytest.approx(value, rel=0, abs=0, nan_ok=True)
            assert second[name]["metrics"][metric] == same, (name, metric)
        assert (
            first[name]["items"] == second[name]["items"] == sum(len(ids) for ids in both(first, second, name, "ids"))
        )
        if name in ("dynamic/1", "both/1"):
            continue  # by then the streams of prompts have advanced by different numbers of surplus groups
        for values in ("prompts", "ids"):
            assert both(first, second, name, values) == expected[values], (name, values)
        assert both(first, second, name, "advantages") == pytest.approx(expected["advantages"], abs=1e-6)
        for metric, value in expected["metrics"].items():
            if not metric.startswith(OF_ROUNDS):
                assert first[name]["metrics"][metric] == pytest.approx(value, rel=1e-5, nan_ok=True), (name, metric)
    for prompts in (alone["dynamic/1"]["prompts"], both(first, second, "dynamic/1", "prompts")):
        assert len(prompts) == COMPLETIONS
        assert all(int(prompt[1:]) % 10 % 2 for prompt in prompts)  # no dead one
    assert first["dynamic/1"]["metrics"]["dynamic_sampling/rounds"] > 1
    assert alone["replay/1"]["metrics"]["replay/replayed_fraction"] == 0.75
    # Each algorithm takes part: the critic has learned, prompts have a greedy completion, the controller has moved.
    variances = [alone[f"gae/{step}"]["metrics"]["critic/explained_variance"] for step in (0, 1)]
    assert variances[0] == pytest.approx(0, abs=1e-6)
    assert abs(variances[1]) > 1e-3
    assert alone["remax/0"]["metrics"]["greedy_reward"] > 0
    assert alone["kl/1"]["metrics"]["beta"] != alone["kl/0"]["metrics"]["beta"] == 0.1


def _resumes_exactly(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Two processes resumed in the middle have the weights of two that were not disturbed, both the same."""
    for name, value in first["whole"].items():
        assert torch.equal(first["resumed"][name], value), name
        assert torch.equal(second["whole"][name], value), name
        assert torch.equal(second["resumed"][name], value), name
    assert any(not torch.equal(first["start"][name], value) for name, value in first["whole"].items())


def both(first: dict[str, Any], second: dict[str, Any], name: str, values: str) -> list[Any]:
    """Values of both processes, one after the other."""
    return first[name][values] + second[name][values]

"""The choice of groups does not depend on how many processes share a generation batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.algorithms.spread import COMPLETIONS

ROOT = Path(__file__).parents[3]


def launched(folder: Path, processes: int) -> list[dict[str, Any]]:
    """The results of each process."""
    folder.mkdir()
    program = ["-m", "tests.training.algorithms.spread", str(folder), str(COMPLETIONS // processes)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}  # by gloo
    done = subprocess.run(
        [*launch, *program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def test_two_processes_choose_the_groups_of_one(tmp_path: Path):
    (alone,) = launched(tmp_path / "one", 1)
    first, second = launched(tmp_path / "two", 2)
    for name, expected in alone.items():
        for values in ("prompts", "ids"):
            assert first[name][values] + second[name][values] == expected[values], (name, values)
        assert first[name]["advantages"] + second[name]["advantages"] == pytest.approx(expected["advantages"], abs=1e-6)
        assert first[name]["items"] == second[name]["items"] == expected["items"]
        for metric, value in expected["metrics"].items():
            if not metric.startswith("completions/"):  # TRL's own, of each round of sampling
                assert first[name]["metrics"][metric] == pytest.approx(value, rel=1e-5, nan_ok=True), (name, metric)
                same = pytest.approx(first[name]["metrics"][metric], rel=0, abs=0, nan_ok=True)
                assert second[name]["metrics"][metric] == same, (name, metric)
    dynamic, replay = alone["dynamic/1"], alone["replay/1"]
    assert all(int(prompt[1:]) % 10 % 2 for prompt in dynamic["prompts"])  # no dead one
    assert dynamic["metrics"]["dynamic_sampling/rounds"] > 1
    assert replay["metrics"]["replay/replayed_fraction"] == 0.75
    assert alone["part/0"]["items"] == sum(len(ids) for ids in alone["part/0"]["ids"])

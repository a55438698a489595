"""Jobs that two processes share on CPU, by gloo, give the results of one process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from rlassay.config import Study
from rlassay.config.policies import policies
from rlassay.layout import Layout
from tests.training.short_run import (
    MAX_STEPS,
    RUN,
    fresh_layout,
    load_short,
    proof,
    rollouts,
    timeless_metrics,
)

HALF: dict[str, Any] = {"processes": 2, "sft__per_device_train_batch_size": 2, "rl__per_device_train_batch_size": 4}
"""Two processes with half the batch of the short run each."""


def start(folder: Path, stage: str, *more: str) -> "subprocess.Popen[str]":
    """A stage of the study in `folder`."""
    where = ["--study", str(folder / "digits.yaml"), "--config", str(folder / "config.yaml")]
    command = [sys.executable, "-m", "rlassay.cli.stages", stage, *where, "--results", str(folder / "results"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(folder: Path, stage: str, *more: str) -> str:
    """The output of a stage that succeeds."""
    job = start(folder, stage, *more)
    output, _ = job.communicate()
    assert job.returncode == 0, output
    return output


def warm_start(study: Study) -> str:
    """The policy folder of the study's warm start."""
    return next(name for name in policies(study) if name.startswith("sft/"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two processes, and the results of its warm start and its run."""
    folder = tmp_path_factory.mktemp("shared")
    study = load_short(folder, **HALF)
    fresh_layout(folder / "results")
    run(folder, "sft_train", "--policy", warm_start(study))
    run(folder, "rl_train", "--policy", RUN)
    return folder


def layout_of(folder: Path) -> Layout:
    return Layout(root=folder / "results" / "digits")


def weights_of(layout: Layout, policy: str, stage: str) -> dict[str, torch.Tensor]:
    manifest = json.loads(layout.train_manifest(policy, stage).read_text())
    return load_file(layout.root / policy / manifest["weights"] / "model.safetensors")


def test_a_warm_start_of_two_processes_is_that_of_one_with_their_batches_together(
    shared: Path, warm_started: Path, tmp_path: Path
):
    two = weights_of(layout_of(shared), warm_start(load_short(tmp_path, **HALF)), "sft")
    one = weights_of(layout_of(warm_started), warm_start(load_short(tmp_path)), "sft")
    for name, values in one.items():
        if not name.endswith("k_proj.bias"):  # its gradient is rounding error, of which AdamW makes whole steps
            torch.testing.assert_close(two[name], values, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_of_two_processes_writes_what_one_writes(shared: Path, uninterrupted: Layout):
    layout = layout_of(shared)
    assert files_of(layout) == files_of(uninterrupted)
    assert proof(layout).keys() == proof(uninterrupted).keys()
    assert [set(line) for line in timeless_metrics(layout)] == [set(line) for line in timeless_metrics(uninterrupted)]
    for folder in (Layout.rollouts, Layout.tokens):
        shards = [sorted(folder(each, RUN).glob("*.parquet")) for each in (layout, uninterrupted)]
        assert [pq.read_schema(file) for file in shards[0]] == [pq.read_schema(file) for file in shards[1]]
    # A generation batch has the completions of both, and the processes sample different ones.
    first = rollouts(layout)[:8]
    assert [row["sample"] for row in first] == [0, 1, 2, 3] * 2
    assert len({row["prompt_id"] for row in first}) == 2
    assert proof(layout)["steps"] == MAX_STEPS


def files_of(layout: Layout) -> list[str]:
    folder = layout.state(RUN)
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())

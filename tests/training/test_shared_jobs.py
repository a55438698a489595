"""Jobs that two processes share on CPU, by gloo: the results of one process, and what happens when a rank dies."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from rlassay import ranks
from rlassay.config import Study
from rlassay.config.policies import policies
from rlassay.layout import Layout
from tests.launcher import Launcher, wait_until
from tests.training.short_run import (
    MAX_STEPS,
    RUN,
    fresh_layout,
    has_logged,
    load_short,
    proof,
    rollouts,
    timeless_metrics,
)

HALF: dict[str, Any] = {"processes": 2, "sft__per_device_train_batch_size": 2, "rl__per_device_train_batch_size": 4}
"""Two processes with half the batch of the short run each."""


def arguments_of(folder: Path, stage: str, *more: str) -> list[str]:
    """The arguments of a stage of the study in `folder`."""
    where = ["--study", str(folder / "digits.yaml"), "--config", str(folder / "config.yaml")]
    return [stage, *where, "--results", str(folder / "results"), *more]


def start(folder: Path, stage: str, *more: str) -> "subprocess.Popen[str]":
    """A stage of the study in `folder`, as users start it."""
    command = [sys.executable, "-m", "rlassay.cli.stages", *arguments_of(folder, stage, *more)]
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


def fork_ranks(launcher: Launcher, folder: Path, stage: str, policy: str, *more: str) -> None:
    """Run a stage whose ranks are forked with the libraries in place, and not started as users start them."""
    signs = folder / f"signs of {stage}"
    signs.mkdir()
    environment = {ranks.FOLDER: str(signs), "DS_ACCELERATOR": "cpu"}
    arguments = arguments_of(folder, stage, "--policy", policy, *more)
    launcher.run_ranks("rlassay.cli.stages", arguments, 2, folder / "log", **environment)


@pytest.fixture(scope="module")
def shared(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two processes, and the results of its warm start and its run."""
    folder = tmp_path_factory.mktemp("shared")
    study = load_short(folder, **HALF)
    fresh_layout(folder / "results")
    run(folder, "sft_train", "--policy", warm_start(study))
    fork_ranks(launcher, folder, "rl_train", RUN)
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


def test_a_killed_rank_ends_the_job_which_resumes_with_the_weights_of_an_undisturbed_one(shared: Path, tmp_path: Path):
    study = load_short(tmp_path, **HALF)
    layout = fresh_layout(tmp_path / "results")
    policy = warm_start(study)
    (layout.root / policy).parent.mkdir()
    os.symlink(layout_of(shared).root / policy, layout.root / policy)
    job = start(tmp_path, "rl_train", "--policy", RUN)
    wait_until(partial(has_logged, layout, 3), 180)
    victim = ranks_below(job.pid)["1"]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    output, _ = job.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert job.returncode == 1
    assert "SIGKILL" in output
    assert not layout.train_manifest(RUN).exists()
    run(tmp_path, "rl_train", "--policy", RUN)
    assert proof(layout)["sha256"] == proof(layout_of(shared))["sha256"]
    assert timeless_metrics(layout) == timeless_metrics(layout_of(shared))
    assert rollouts(layout) == rollouts(layout_of(shared))
    assert proof(layout)["resumes"][0]["step"] >= 2


HANGING = """
import os, sys, threading, time

def hang():
    time.sleep(600)

def patch():
    while not hasattr(sys.modules.get("rlassay.training.job_callback"), "JobCallback"):
        time.sleep(0.05)
    callback = sys.modules["rlassay.training.job_callback"].JobCallback
    end = callback.on_step_end
    callback.on_step_end = lambda self, args, state, *more, **options: (
        hang() if state.global_step == 2 else end(self, args, state, *more, **options)
    )

if os.environ.get("RANK") == "1":
    threading.Thread(target=patch, daemon=True).start()
"""
"""`sitecustomize.py` of a rank that stops at the end of its second step, with Python still running."""


def test_a_rank_that_hangs_ends_the_job_within_a_minute_with_its_stack_in_the_log(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    study = load_short(tmp_path, **HALF)
    layout = fresh_layout(tmp_path / "results")
    policy = warm_start(study)
    (layout.root / policy).parent.mkdir()
    os.symlink(layout_of(shared).root / policy, layout.root / policy)
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    job = start(tmp_path, "rl_train", "--policy", RUN)
    wait_until(partial(has_logged, layout, 1), 120)
    hung = time.monotonic()
    output, _ = job.communicate(timeout=120)
    assert time.monotonic() - hung < 60
    assert job.returncode == 1
    assert "error: none of 2 ranks has made progress for 30 s; the job ends, and resumes" in output
    assert "in hang" in output
    assert not layout.train_manifest(RUN).exists()


def ranks_below(pid: int) -> dict[str, int]:
    """Rank -> process id, of the processes that a job has started."""
    (agent,) = psutil.Process(pid).children()
    return {each.environ()["RANK"]: each.pid for each in agent.children()}

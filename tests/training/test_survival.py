"""Training jobs that are killed, disturbed and corrupted, as real processes."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from rlassay.layout import Layout
from tests.launcher import Launcher, wait_until
from tests.training.short_run import (
    MAX_STEPS,
    RUN,
    SAVE_STEPS,
    command,
    has_logged,
    proof,
    rollouts,
    steps_logged,
    timeless_metrics,
    write_study,
)


@pytest.fixture
def arguments(layout: Layout, tmp_path: Path) -> list[str]:
    """Those of `rl_train` for the run in `layout`."""
    write_study(tmp_path)
    return command(tmp_path, layout.root.parent)


def assert_same_result(layout: Layout, uninterrupted: Layout) -> None:
    assert proof(layout)["sha256"] == proof(uninterrupted)["sha256"]
    assert proof(layout)["steps"] == MAX_STEPS
    assert proof(layout)["generated_tokens"] == proof(uninterrupted)["generated_tokens"]
    assert timeless_metrics(layout) == timeless_metrics(uninterrupted)
    assert rollouts(layout) == rollouts(uninterrupted)


def status(layout: Layout) -> str:
    return json.loads((layout.state(RUN) / "run.json").read_text())["status"]


def test_killed_at_random_moments_it_ends_with_the_weights_of_an_undisturbed_run(
    layout: Layout, uninterrupted: Layout, arguments: list[str], launcher: Launcher, tmp_path: Path
):
    chance = random.Random(3)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        attempt = launcher.start(["rl_train", *arguments], tmp_path / "log")
        # At least one checkpoint further than it was, then any moment of the following step.
        furthest = min(steps_logged(layout) + SAVE_STEPS, MAX_STEPS - 1)
        wait_until(partial(has_logged, layout, furthest))
        time.sleep(chance.uniform(0, 0.1))
        attempt.send(number)
        assert attempt.wait() == (143 if number == signal.SIGTERM else -9)
    command_line = [sys.executable, "-X", "importtime", "-m", "rlassay.cli.stages", "rl_train", *arguments]
    finished = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", finished.stderr, flags=re.MULTILINE))
    assert "trl" in imported
    assert "mlflow" not in imported  # a second that no job needs
    assert_same_result(layout, uninterrupted)
    resumed = [resume["step"] for resume in proof(layout)["resumes"]]
    assert len(resumed) == 3
    assert resumed[-1] > 0
    assert all(step % SAVE_STEPS == 0 for step in resumed)


def test_sigterm_ends_it_at_once_with_143_and_is_recorded(
    layout: Layout, arguments: list[str], launcher: Launcher, tmp_path: Path
):
    attempt = launcher.start(["rl_train", *arguments], tmp_path / "log")
    wait_until(partial(has_logged, layout, 1))
    sent = time.monotonic()
    attempt.send(signal.SIGTERM)
    assert attempt.wait() == 143
    assert time.monotonic() - sent < 60
    assert status(layout) == "killed"
    assert not layout.train_manifest(RUN).exists()


def test_a_corrupt_newest_checkpoint_falls_back_to_the_one_before(
    layout: Layout, uninterrupted: Layout, arguments: list[str], launcher: Launcher, tmp_path: Path
):
    attempt = launcher.start(["rl_train", *arguments], tmp_path / "log")
    wait_until(partial(has_logged, layout, 5))
    attempt.send(signal.SIGKILL)
    attempt.wait()
    newest = max((layout.state(RUN) / "checkpoints").glob("checkpoint-*/manifest.json")).parent
    assert newest.name != "checkpoint-2"
    with (newest / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    assert launcher.start(["rl_train", *arguments], tmp_path / "log").wait() == 0
    assert proof(layout)["resumes"][0]["step"] == int(newest.name.removeprefix("checkpoint-")) - SAVE_STEPS
    assert f"{newest} is not sound (model.safetensors has 1000 bytes" in (tmp_path / "log").read_text()
    assert_same_result(layout, uninterrupted)


def test_a_second_job_in_the_same_directory_is_refused_and_leaves_the_first_alone(
    layout: Layout, uninterrupted: Layout, arguments: list[str], launcher: Launcher, tmp_path: Path
):
    first = launcher.start(["rl_train", *arguments], tmp_path / "log")
    wait_until(partial(has_logged, layout, 1))
    first.send(signal.SIGSTOP)
    second = launcher.start(["rl_train", *arguments], tmp_path / "second.log")
    assert second.wait() == 2
    message = (tmp_path / "second.log").read_text()
    assert f"{layout.root / RUN} is in use by process {first.pid} on " in message
    assert "Traceback" not in message
    first.send(signal.SIGCONT)
    assert first.wait() == 0
    assert_same_result(layout, uninterrupted)


def test_a_removed_manifest_reruns_from_step_0_with_the_same_result(
    layout: Layout, uninterrupted: Layout, arguments: list[str], launcher: Launcher, tmp_path: Path
):
    assert launcher.start(["rl_train", *arguments], tmp_path / "log").wait() == 0
    began = proof(layout)
    assert launcher.start(["rl_train", *arguments], tmp_path / "log").wait() == 0
    assert proof(layout) == began  # nothing to do
    layout.train_manifest(RUN).unlink()
    assert launcher.start(["rl_train", *arguments], tmp_path / "log").wait() == 0
    assert proof(layout)["resumes"] == []
    assert_same_result(layout, uninterrupted)


def test_too_few_gpus_are_refused_without_a_traceback(layout: Layout, launcher: Launcher, tmp_path: Path):
    write_study(tmp_path, gpus=64)
    attempt = launcher.start(["rl_train", *command(tmp_path, layout.root.parent)], tmp_path / "log")
    assert attempt.wait() == 2
    assert (tmp_path / "log").read_text().startswith("error: the study declares gpus: 64")

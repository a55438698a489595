"""The launcher of jobs of several processes: it ends a job when a rank hangs, or all of them wait."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlassay import ranks
from rlassay.cli import launch as launcher
from rlassay.files import read_json
from tests.config.studies import study
from tests.launcher import wait_until
from tests.training.short_run import RUN, load_short

QUICK = "import sys, time; from rlassay import ranks; ranks.BEAT = 0.1"
RANK = f"{QUICK}; ranks.show_life(); time.sleep(600)"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits of the launcher that suit ranks with ten signs of life per second."""
    for name, seconds in {"SILENCE": 1.5, "IDLE": 1.5, "PATIENCE": 2.0, "POLL": 0.1, "STACKS_SECONDS": 0.5}.items():
        monkeypatch.setattr(launcher, name, seconds)


def start_ranks(folder: Path, *commands: list[str]) -> list["subprocess.Popen[bytes]"]:
    """Ranks that run these Python programs, once all have shown a sign of life."""
    environment = os.environ | {ranks.FOLDER: str(folder), "WORLD_SIZE": str(len(commands))}
    members = [
        subprocess.Popen([sys.executable, "-c", *command], env=environment | {"RANK": str(rank)})
        for rank, command in enumerate(commands)
    ]
    wait_until(lambda: all(ranks.alive(folder, rank).exists() for rank in range(len(commands))))
    return members


def watch(folder: Path, lasts: float, hang_minutes: float = 120.0) -> tuple[int, list[str]]:
    """Watch two ranks while a launcher sleeps, then end all; its exit status, and the notes."""
    agent = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({lasts})"])
    notes: list[str] = []
    status = launcher._watch(agent, folder, 2, hang_minutes, notes.append)
    launcher._end(agent, folder)
    assert agent.wait() == (-signal.SIGTERM if status else 0)
    return status, notes


@pytest.mark.usefixtures("quick")
def test_a_stopped_rank_ends_the_job_with_a_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    members = start_ranks(tmp_path, [RANK], [RANK])
    pids = [(read_json(ranks.alive(tmp_path, rank)) or {})["pid"] for rank in range(2)]
    assert pids == [each.pid for each in members]
    members[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    status, notes = watch(tmp_path, 600)
    assert status == launcher.FAILED
    assert 1.5 <= time.monotonic() - began < 30
    assert [each.wait() for each in members] == [-signal.SIGKILL, -signal.SIGKILL]
    errors = capfd.readouterr().err
    assert "error: rank 1 of 2 has shown no sign of life for 1.5 s" in errors
    (note,) = notes
    assert note.startswith("rank 1 of 2 has shown no sign of life for 1.5 s; the job ends")
    assert "Current thread" in errors  # the stacks of rank 0, which can still print them


WAITING = f"""
{QUICK}
ranks.show_life()
def spin(until):
    while time.monotonic() < until: sum(range(1000))
def wait_for_the_others(): time.sleep(600)
with ranks.PROGRESS.watched():
    if sys.argv[1] == "waits": wait_for_the_others()
    if sys.argv[1] == "works": spin(time.monotonic() + 600)
    if sys.argv[1] == "asks a server":
        with ranks.PROGRESS.patient(): time.sleep(600)
if sys.argv[1] == "downloads": time.sleep(600)
"""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("second", ["waits", "works", "asks a server", "downloads"])
def test_ranks_that_all_wait_end_the_job_with_their_stacks(
    second: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    members = start_ranks(tmp_path, [WAITING, "waits"], [WAITING, second])
    status, notes = watch(tmp_path, 30 if second == "waits" else 4)
    for each in members:
        each.wait()
    if second != "waits":
        assert (status, notes) == (0, [])
        return
    assert status == launcher.FAILED
    assert notes[0].startswith("none of 2 ranks has made progress for 1.5 s; the job ends, and resumes")
    errors = capfd.readouterr().err
    _, first, last = re.split(r"^rank[01]:$", errors, flags=re.MULTILINE)
    assert first.count("in wait_for_the_others") == last.count("in wait_for_the_others") == 1


LOOPING = f"""
{QUICK}
def train():
    while True:
        until = time.monotonic() + 0.2
        while time.monotonic() < until: sum(range(1000))
        if sys.argv[1] == "finishes steps": ranks.PROGRESS.finish_step()
        if sys.argv[1] == "asks a server":
            with ranks.PROGRESS.patient(): time.sleep(600)
def load_model():
    while True: sum(range(1000))
ranks.show_life()
if sys.argv[1] == "loads": load_model()
with ranks.PROGRESS.watched(): train()
"""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("second", ["loops", "loads", "finishes steps", "asks a server"])
def test_a_job_that_finishes_no_step_ends_with_its_stacks(
    second: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    members = start_ranks(tmp_path, [LOOPING, "loops"], [LOOPING, second])
    hangs = second in ("loops", "loads")
    status, notes = watch(tmp_path, 60 if hangs else 4, hang_minutes=0.025)
    for each in members:
        each.wait()
    if not hangs:
        assert (status, notes) == (0, [])
        return
    assert status == launcher.FAILED
    assert notes[0].startswith(
        "none of 2 ranks has finished a step, a batch of answers or the loading of its model for 0.025 minutes "
        "(resources.hang_minutes in config/config.yaml); the job ends, and resumes"
    )
    errors = capfd.readouterr().err
    stacks = [errors.count(f"in {name}") for name in ("train", "load_model")]
    assert stacks == ([2, 0] if second == "loops" else [1, 1])


def test_a_rank_at_full_load_that_stays_in_one_place_ends_the_job_after_longer():
    def sign(idle: float, still: float, stalled: float = 0.0, *, ended: bool = False) -> dict[str, Any]:
        return {"ended": ended, "idle": idle, "still": still, "stalled": stalled}

    def problem(first: dict[str, Any], second: dict[str, Any] | None) -> str | None:
        return launcher._standstill({0: first, 1: second}, 120.0)

    assert problem(sign(29.0, 29.0), sign(31.0, 31.0)) is None
    assert problem(sign(31, 31), sign(31, 31)) == "none of 2 ranks has made progress for 30 s"
    assert problem(sign(31, 601), sign(0, 599)) is None
    assert problem(sign(0, 601), sign(0, 601)) == "none of 2 ranks has made progress for 600 s"
    assert problem(sign(0, 601), sign(31, 601, ended=True)) is None
    assert problem(sign(31, 31), None) is None
    # 120 minutes are 7,200 s.
    assert problem(sign(0, 0, 7199), sign(0, 0, 7201)) is None
    assert (problem(sign(0, 0, 7201), sign(0, 0, 7201)) or "").startswith("none of 2 ranks has finished a step")
    assert problem(sign(0, 0, 7201), sign(0, 0, 7201, ended=True)) is None


def test_a_rank_that_never_starts_ends_the_job():
    started: dict[str, Any] = {"ended": False}
    silent = {0: 0.0, 1: 7199.0}
    assert launcher._silence(silent, {0: started, 1: None}, 120.0) is None
    silent[1] = 7201.0
    problem = launcher._silence(silent, {0: started, 1: None}, 120.0)
    assert problem == "rank 1 of 2 has shown no sign of life for 7200 s"
    assert launcher._silence({0: 31.0, 1: 31.0}, {0: started, 1: None}, 120.0) == (
        "rank 0 of 2 has shown no sign of life for 30 s"
    )


def test_the_environment_says_how_processes_join(tmp_path: Path):
    def environment(**edits: Any) -> dict[str, str]:
        return launcher._environment(study(**edits), tmp_path, 3)

    on_cpu = environment(processes=2, strategy="fsdp2")
    assert (on_cpu["ACCELERATE_USE_CPU"], on_cpu["OMP_NUM_THREADS"]) == ("true", "3")
    assert "ACCELERATE_USE_FSDP" not in on_cpu
    on_gpus = environment(gpus=2, strategy="fsdp2")
    assert (on_gpus["ACCELERATE_USE_FSDP"], on_gpus["FSDP_STATE_DICT_TYPE"]) == ("true", "FULL_STATE_DICT")
    assert not {"ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP"} & environment(gpus=2).keys()


def test_what_ranks_refuse_is_one_message_at_the_end(tmp_path: Path):
    """Two ranks refuse their job: its fingerprint is not the one that was planned."""
    load_short(tmp_path, processes=2)
    where = ["--study", str(tmp_path / "digits.yaml"), "--config", str(tmp_path / "config.yaml")]
    options = ["--results", str(tmp_path / "results"), "--policy", RUN, "--fingerprint", "0"]
    command = [sys.executable, "-m", "rlassay.cli.stages", "rl_train", *where, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("the study changed after this job was planned") == 1
    assert "the study changed after this job was planned" in done.stdout.splitlines()[-1]


def test_a_rank_ends_with_its_launcher(tmp_path: Path):
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {RANK!r}]).wait()"
    (agent,) = start_ranks(tmp_path, [program])
    pid = (read_json(ranks.alive(tmp_path, 0)) or {})["pid"]
    agent.kill()
    agent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)

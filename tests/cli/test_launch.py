"""The launcher of jobs of several processes: what it does when a rank hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlassay import ranks
from rlassay.cli import launch as launcher
from rlassay.files import read_json

RANK = "import time; from rlassay import ranks; ranks.show_life(); time.sleep(600)"


def test_a_stopped_rank_ends_the_job_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(launcher, "SILENCE", 3.0)
    monkeypatch.setattr(launcher, "PATIENCE", 2.0)
    environment = os.environ | {ranks.FOLDER: str(tmp_path), "WORLD_SIZE": "2"}
    members = [
        subprocess.Popen([sys.executable, "-c", RANK], env=environment | {"RANK": str(rank)}) for rank in range(2)
    ]
    while not all(ranks.alive(tmp_path, rank).exists() for rank in range(2)):
        time.sleep(0.05)
    assert [(read_json(ranks.alive(tmp_path, rank)) or {})["pid"] for rank in range(2)] == [
        each.pid for each in members
    ]
    members[1].send_signal(signal.SIGSTOP)
    agent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    began = time.monotonic()
    notes: list[str] = []
    assert launcher._watch(agent, tmp_path, 2, notes.append) == launcher.FAILED
    launcher._end(agent, tmp_path)
    assert 3 <= time.monotonic() - began < 30
    assert [each.wait() for each in members] == [-signal.SIGKILL, -signal.SIGKILL]
    assert agent.wait() == -signal.SIGTERM
    errors = capfd.readouterr().err
    assert "error: rank 1 of 2 has shown no sign of life for 3 s" in errors
    (note,) = notes
    assert note.startswith("rank 1 of 2 has shown no sign of life for 3 s; the job ends")
    assert "Current thread" in errors  # the stacks of rank 0, which can still print them


def test_a_rank_ends_with_its_launcher(tmp_path: Path):
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {RANK!r}]).wait()"
    environment = os.environ | {ranks.FOLDER: str(tmp_path), "RANK": "0", "WORLD_SIZE": "1"}
    agent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    file = ranks.alive(tmp_path, 0)
    while not file.exists():
        time.sleep(0.05)
    pid = (read_json(file) or {})["pid"]
    agent.kill()
    agent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)

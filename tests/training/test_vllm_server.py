"""A vLLM server has the weights of one run: others wait for it. (The locks need no server.)"""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from rlassay.config.engine import VLLMSampler
from rlassay.locks import CHOICE
from rlassay.training.rl import vllm_arguments
from rlassay.training.vllm.server import SHARED, server_name, sole_use
from tests.launcher import Launcher, wait_until
from tests.training.short_run import RUN, fresh_layout

HOLDER = """
import sys, time
from pathlib import Path
from typing import IO
from rlassay.training.vllm.server import sole_use
address, run, results, locks = sys.argv[1:]
with sole_use(address, run, Path(results), Path(locks)):
    print(f"samples {time.time()}", flush=True)
    time.sleep(600)
"""
ADDRESS = "http://localhost:8765"


@contextmanager
def holder_of(address: str, run: str, folder: Path, machine: str = "a") -> "Generator[subprocess.Popen[str]]":
    """A process that holds the server, or waits for it; `machine` names the folder of its machine's locks."""
    command = [sys.executable, "-c", HOLDER, address, run, str(folder / "results"), str(folder / machine)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        try:
            yield holder
        finally:
            holder.kill()


def first_line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


@pytest.mark.parametrize(
    ("kind", "machine", "results"), [("flock", "a", "other"), ("flock", "b", "same"), ("lease", "b", "same")]
)
def test_a_second_run_waits_until_the_first_one_is_killed(
    kind: str, machine: str, results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On one machine whatever the results' folders, and on two that share it."""
    monkeypatch.setenv(CHOICE, kind)
    with holder_of(ADDRESS, "results/x/runs/base/seed0", tmp_path) as first:
        assert first_line(first.stdout).startswith("samples")
        second_folder = tmp_path if results == "same" else tmp_path / "elsewhere"
        if results != "same":
            second_folder.mkdir()
            (second_folder / machine).symlink_to(tmp_path / machine)
        with holder_of("http://127.0.0.1:8765/", "results/y/runs/base/seed0", second_folder, machine) as second:
            said = first_line(second.stderr)
            assert "waiting for the vLLM server at http://127.0.0.1:8765/: results/x/runs/base/seed0 samples" in said
            assert f"(process {first.pid} on {platform.node()})" in said
            killed = time.time()
            first.kill()
            first.wait()
            began = float(first_line(second.stdout).split()[1])
            assert began >= killed
            facts = [json.loads(file.read_text()) for file in (second_folder / "results" / SHARED).glob("*.json")]
            assert [(each["run"], each["pid"]) for each in facts] == [("results/y/runs/base/seed0", second.pid)]


def test_runs_on_different_servers_do_not_wait(tmp_path: Path):
    with holder_of(ADDRESS, "runs/a", tmp_path) as first, holder_of("http://localhost:8766", "b", tmp_path) as second:
        assert first_line(first.stdout).startswith("samples")
        assert first_line(second.stdout).startswith("samples")


def test_a_server_has_one_name_for_all_addresses_of_its_machine():
    here = platform.node().split(".")[0].lower()
    own = {"http://localhost:8000", "http://127.0.0.1:8000/v1", "http://0.0.0.0:8000", f"http://{platform.node()}:8000"}
    assert {server_name(address) for address in own} == {f"{here}_8000"}
    assert server_name("https://localhost") == f"{here}_443"
    assert server_name("http://NODE17.cluster.invalid:8000") == server_name("http://node17:8000") == "node17_8000"
    assert server_name("http://10.9.8.7:8000") == "10.9.8.7_8000"


def test_the_lock_is_free_after_an_error(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(KeyError), sole_use(ADDRESS, "runs/a", tmp_path, tmp_path / "locks"):
            raise KeyError


def test_a_training_job_waits_for_the_server_of_its_study(launcher: Launcher, tmp_path: Path):
    layout = fresh_layout(tmp_path / "results")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"  # the machine's locks are those of all tests
    log = tmp_path / "log"
    with sole_use(address, "results/other/runs/base/seed9", layout.root.parent):
        job = launcher.start([str(tmp_path), address], log, "tests.training.run_on_server")
        wait_until(lambda: log.exists() and "waiting for" in log.read_text())
        assert "results/other/runs/base/seed9 samples on it" in log.read_text()
        assert json.loads((layout.state(RUN) / "run.json").read_text())["status"] == "running"
        time.sleep(1)
        job.send(signal.SIGTERM)
        assert job.wait() == 128 + signal.SIGTERM
    record = json.loads((layout.state(RUN) / "run.json").read_text())
    assert record["status"] == "killed"
    (attempt,) = record["attempts"]
    assert 1 <= attempt["waited"] <= attempt["ended"] - attempt["started"]
    assert os.listdir(layout.root.parent / SHARED)


def test_two_trainers_on_one_machine_meet_their_servers_at_different_ports():
    engines = (VLLMSampler(kind="vllm", mode="server", server_base_url=url) for url in (ADDRESS, "http://node17:8000"))
    ports = [vllm_arguments(engine)["vllm_group_port"] for engine in engines]
    assert len(set(ports)) == 2
    assert "vllm_group_port" not in vllm_arguments(VLLMSampler(kind="vllm"))

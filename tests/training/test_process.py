"""The lock, the signals and the machine of a training job."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlassay import ranks
from rlassay.config.fingerprints import package_version
from rlassay.files import write_json
from rlassay.progress import is_held
from rlassay.training import process
from rlassay.training.process import (
    RefusedError,
    RunBusyError,
    join_processes,
    locked,
    peak_memory_mb,
    require_gpus,
    signals_as_exceptions,
)
from tests.evaluation.tiny import only
from tests.launcher import Launcher, environments
from tests.training.short_run import load_short

JOB = "from rlassay.training.process import workflow_process as look; above = look(); print(above and above.pid)"
WORKFLOW = """
import os, subprocess, sys
print(os.getpid(), flush=True)
subprocess.run(["bash", "-c", "{python} -c '{job}'; true"], check=True)
"""


def test_a_second_process_learns_who_holds_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlassay.training.process.SECONDS_FOR_A_PROBE", 0.1)
    write_json(tmp_path / "run.json", {"pid": 4711, "host": "node7"})
    with locked(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(RunBusyError, match=r"in use by process 4711 on node7.*Wait for it to finish or stop it"):
            locked(tmp_path).__enter__()
    assert not is_held(tmp_path)
    with locked(tmp_path):  # free again
        pass


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_become_exit_codes_and_handlers_are_put_back(number: signal.Signals, status: int):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left, signals_as_exceptions():
        os.kill(os.getpid(), number)
    assert left.value.code == status
    assert signal.getsignal(number) == before


def test_fewer_gpus_than_declared_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_gpus(0)
    require_gpus(1)
    with pytest.raises(RefusedError, match=r"the study declares gpus: 2, but this job sees 1\. Raise the cap"):
        require_gpus(2)


@pytest.mark.parametrize(("launched", "joined"), [(False, 1), (True, 1), (True, 3)])
def test_another_number_of_processes_than_declared_is_refused(
    launched: bool, joined: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "is_launched", lambda: launched)
    monkeypatch.setattr(process, "spans_machines", lambda: False)
    monkeypatch.setattr(process, "_processes", lambda **options: SimpleNamespace(num_processes=joined))
    with pytest.raises(RefusedError, match=f"declares 2 processes for each job, but {joined} share this one. Start it"):
        join_processes(2, on_cpu=True)
    monkeypatch.setattr(process, "_processes", lambda **options: SimpleNamespace(num_processes=2))
    if launched:
        join_processes(2, on_cpu=True)


def test_machines_with_different_libraries_refuse_their_job(launcher: Launcher, tmp_path: Path):
    """Two processes of one rank per machine, the second of which finds another TRL, and a vLLM that the first lacks."""
    for name, version in (("trl", "1.15.0"), ("vllm", "0.0.1")):
        about = tmp_path / f"other/{name}-{version}.dist-info/METADATA"
        about.parent.mkdir(parents=True)
        about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    study = load_short(tmp_path, nodes=2)
    signs, policy = tmp_path / "signs", only(study, "sft").folder
    signs.mkdir()
    where = ["--study", str(tmp_path / "digits.yaml"), "--config", str(tmp_path / "config.yaml")]
    arguments = ["sft_train", *where, "--results", str(tmp_path / "results"), "--policy", policy]
    of_ranks = environments(2, **{ranks.FOLDER: str(signs), "LOCAL_WORLD_SIZE": "1"})
    jobs = [
        launcher.start(arguments, tmp_path / "log", environment=each, path=str(tmp_path / other))
        for each, other in zip(of_ranks, ("none", "other"), strict=True)
    ]
    assert [job.wait() for job in jobs] == [2, 2], (tmp_path / "log").read_text()
    own = package_version("vllm") or "none"
    assert (signs / "refused").read_text() == (
        f"{platform.node()} and {platform.node()} share this job and have different libraries: trl "
        f"{package_version('trl')} and 1.15.0, vllm {own} and 0.0.1. Let all nodes see one environment, under the "
        "same path."
    )


def test_peak_memory_is_that_of_this_process():
    # A process that has imported torch holds more than 100 MiB and, in these tests, less than 100 GiB.
    assert 100 < peak_memory_mb() < 100_000


def test_the_snakemake_above_the_shell_is_found(tmp_path: Path):
    (tmp_path / "snakemake").write_text(WORKFLOW.format(python=sys.executable, job=JOB))
    done = subprocess.run([sys.executable, str(tmp_path / "snakemake")], capture_output=True, text=True, check=True)
    own, found = done.stdout.split()
    assert found == own


def test_a_job_by_hand_has_none():
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"

"""GPUs are handed out to jobs side by side, and never shared. (The devices are names only: no GPU is used.)"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlassay.cli.gpus import handed_out, set_aside
from rlassay.training.process import RefusedError

JOB = """
import sys, time
from pathlib import Path
from rlassay.cli.gpus import handed_out
with handed_out({count}, Path({locks!r})) as own:
    began = time.time()
    time.sleep({seconds})
    Path({result!r}).write_text(",".join(own) + f" {{began}} {{time.time()}}")
"""


@pytest.fixture(autouse=True)
def _three_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def start(folder: Path, name: str, count: int, seconds: float) -> "subprocess.Popen[bytes]":
    program = JOB.format(count=count, locks=str(folder / "locks"), seconds=seconds, result=str(folder / name))
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)


def test_jobs_side_by_side_hold_different_gpus_and_the_third_waits(tmp_path: Path):
    jobs = {name: start(tmp_path, name, count, 2.0) for name, count in (("a", 1), ("b", 2), ("c", 2))}
    assert [job.wait() for job in jobs.values()] == [0, 0, 0]
    spans = []
    for name in jobs:
        devices, began, ended = (tmp_path / name).read_text().split(" ")
        spans.append((set(devices.split(",")), float(began), float(ended)))
    assert [len(devices) for devices, *_ in spans] == [1, 2, 2]
    for index, (devices, began, ended) in enumerate(spans):
        assert devices <= {"0", "2", "5"}
        for others, other_began, other_ended in spans[index + 1 :]:
            assert not devices & others or began >= other_ended or other_began >= ended


def test_a_killed_job_frees_its_gpus(tmp_path: Path):
    job = start(tmp_path, "a", 3, 600)
    while len(list((tmp_path / "locks").glob("*.lock"))) < 3:
        time.sleep(0.05)
    time.sleep(0.5)
    job.kill()
    job.wait()
    with handed_out(3, tmp_path / "locks") as own:
        assert own == ["0", "2", "5"]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2,5"


def test_the_job_sees_its_own_gpus_alone(tmp_path: Path):
    other = start(tmp_path, "a", 1, 600)
    while not (tmp_path / "locks/0.lock").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    with handed_out(1, tmp_path / "locks") as own:
        assert own == ["2"]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2,5"
    other.kill()
    other.wait()


def test_more_gpus_than_the_machine_has_are_refused_with_the_numbers(tmp_path: Path):
    with (
        pytest.raises(RefusedError, match=r"declares gpus: 4, but this job sees 3 \(0, 2, 5\)"),
        handed_out(4, tmp_path),
    ):
        pass


def test_a_cluster_hands_out_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with handed_out(64, tmp_path) as own:
        assert own == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2,5"


def test_a_process_beside_the_job_sees_the_last_gpu_and_the_job_the_others(tmp_path: Path):
    with handed_out(3, tmp_path, beside=1), set_aside(1) as environment:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2"
        assert environment["CUDA_VISIBLE_DEVICES"] == "5"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2,5"
    with (
        pytest.raises(RefusedError, match=r"declares gpus: 3 and 1 for evaluation.while_training, but this job sees 3"),
        handed_out(4, tmp_path, beside=1),
    ):
        pass

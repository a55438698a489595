"""Jobs of several machines: where their launchers meet, and what stops them before they start. Slurm is scripts."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rlassay.cli.cluster import nodes
from rlassay.config import Study, load_study
from rlassay.training.process import RefusedError

Programs = Callable[..., None]


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("digits").model_copy(update={"nodes": 2, "gpus": 2})


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Puts scripts of Slurm's names on the path, each printing a text; the job has the number 31234."""

    def install(**printed: str) -> None:
        for name, text in printed.items():
            (tmp_path / name).write_text(f"#!/bin/bash\necho '{text}'\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if "srun" in printed else str(tmp_path))

    monkeypatch.setenv(nodes.JOB, "31234")
    return install


def test_one_launcher_on_each_machine_meets_the_others_on_the_first(study: Study, slurm: Programs):
    slurm(srun="", squeue="gpu[07-08]", scontrol="gpu07\ngpu08")
    command = nodes.command(study, ["--num_processes", "4", "-m", "rlassay.cli.stages", "rl_train"])
    text = " ".join(command)
    assert command[0] == "srun"
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1" in text
    # 20,000 and the last four digits of the job's number.
    assert "--num_machines 2 --main_process_ip gpu07 --main_process_port 21234" in text
    assert text.endswith("--num_processes 4 -m rlassay.cli.stages rl_train")
    assert '--machine_rank "$SLURM_PROCID"' in text


def test_without_slurm_the_study_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(nodes.JOB, raising=False)
    with pytest.raises(RefusedError, match=r"declares nodes: 2, and no Slurm job .* --profile profiles/slurm"):
        nodes.meeting(study)


def test_a_missing_launcher_is_named(study: Study, slurm: Programs):
    slurm(squeue="", scontrol="")
    with pytest.raises(RefusedError, match="and srun, which start and find processes"):
        nodes.meeting(study)


def test_another_number_of_machines_is_named(study: Study, slurm: Programs):
    slurm(srun="", squeue="gpu[07-09]", scontrol="gpu07\ngpu08\ngpu09")
    with pytest.raises(RefusedError, match=r"declares nodes: 2, but Slurm job 31234 has 3 \(gpu07, gpu08, gpu09\)"):
        nodes.meeting(study)


def test_a_port_in_use_is_named(study: Study, slurm: Programs):
    slurm(srun="", squeue="n", scontrol="n1\nn2")
    with socket.socket() as taken:
        taken.bind(("", 21234))
        taken.listen()
        with pytest.raises(RefusedError, match=r"port 21234 of n1, .* is in use .* Run the command again"):
            nodes.meeting(study)

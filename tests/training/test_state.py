"""The decisions of `open_run`, with a job that only pretends to train; `test_survival.py` kills real ones."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.progress import is_held, read_progress
from rlassay.training.checkpoints import seal
from rlassay.training.state import (
    RefusedError,
    Run,
    RunBusyError,
    RunPlan,
    locked,
    open_run,
    peak_memory_mb,
    require_gpus,
    signals_as_exceptions,
)

# MERGED FROM test_state.py: The decisions of `open_run`, with a job that only pretends to train;
# `test_survival.py` kills real ones.


class Pretender:
    """What `Run.finish` needs of a trainer."""

    class state:  # noqa: N801
        global_step = 4

    def save_model(self, folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(root=tmp_path)


def plan(**changes: Any) -> RunPlan:
    content: dict[str, Any] = {
        "policy": "runs/base/seed1",
        "stage": "rl",
        "arm": "base",
        "seed": 1,
        "max_steps": 4,
        "gpus": 0,
        "fingerprint": "abcd1234",
        "inputs": {"code": "1"},
    }
    return RunPlan(**content | changes)


def checkpoint(run: Run, step: int) -> None:
    """A sound checkpoint with the metrics and the rollouts of that step and the next."""
    folder = run.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(step))
    seal(folder)
    run.metrics.write_text("".join(json.dumps({"step": each, "time": 5.0}) + "\n" for each in range(1, step + 2)))
    run.rollouts.mkdir(exist_ok=True)
    for each in range(1, step + 2):
        (run.rollouts / f"step{each:06d}.parquet").touch()


def killed_after(layout: Layout, step: int, **changes: Any) -> None:
    def job() -> None:
        with open_run(layout, plan(**changes)) as run:
            checkpoint(run, step)
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        job()


def written(layout: Layout) -> dict[str, Any]:
    return json.loads((layout.state("runs/base/seed1") / "run.json").read_text())


def test_a_killed_job_resumes_and_forgets_what_came_after_its_checkpoint(layout: Layout):
    killed_after(layout, 2)
    assert written(layout)["status"] == "killed"
    with open_run(layout, plan()) as run:
        assert run.resumed_step == 2
        assert Path(str(run.resume_from)).name == "checkpoint-2"
        assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [1, 2]
        assert sorted(path.stem for path in run.rollouts.iterdir()) == ["step000001", "step000002"]
    assert written(layout)["status"] == "finished"
    assert [attempt["step"] for attempt in written(layout)["attempts"]] == [0, 2]


@pytest.mark.parametrize("changes", [{"fingerprint": "other"}, {"inputs": {"code": "2"}}])
def test_another_identity_starts_afresh(layout: Layout, changes: dict[str, Any]):
    killed_after(layout, 2)
    with open_run(layout, plan(**changes)) as run:
        assert (run.resume_from, run.resumed_step) == (None, 0)
        assert sorted(path.name for path in run.state.iterdir()) == ["lock", "run.json"]
    assert len(written(layout)["attempts"]) == 1


def test_a_finished_job_proves_its_steps_and_is_not_done_again(layout: Layout):
    killed_after(layout, 2)
    with open_run(layout, plan()) as run:
        run.finish(Pretender(), generated_tokens=120)  # type: ignore[arg-type]
    proof = json.loads(run.manifest.read_text())
    assert (proof["steps"], proof["max_steps"], proof["generated_tokens"], proof["gpus"]) == (4, 4, 120, 0)
    assert proof["fingerprint"] == "abcd1234"
    assert proof["weights"] == "state/weights"
    # sha256 of b"weights".
    assert proof["sha256"] == {"model.safetensors": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"}
    assert [resume["step"] for resume in proof["resumes"]] == [2]
    assert set(proof["versions"]) == {"torch", "transformers", "trl", "rlassay"}
    assert proof["peak_memory_mb"] > 0
    assert (run.weights / "model.safetensors").read_bytes() == b"weights"
    assert run.complete.exists()
    assert not run.checkpoints.exists()
    with open_run(layout, plan()) as again:
        assert again.finished
    assert json.loads(run.manifest.read_text()) == proof


def test_complete_without_its_sentinel_is_a_forced_rerun(layout: Layout):
    with open_run(layout, plan()) as run:
        run.finish(Pretender())  # type: ignore[arg-type]
    run.manifest.unlink()
    with open_run(layout, plan()) as again:
        assert not again.finished
        assert again.resume_from is None
        assert not again.complete.exists()
        assert not again.weights.exists()


class Gone:
    """A Snakemake that was killed."""

    def is_running(self) -> bool:
        return False


def test_a_job_that_outlived_its_snakemake_is_not_taken_for_a_forced_rerun(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rlassay.training.state.workflow_process", Gone)
    with open_run(layout, plan()) as run:
        checkpoint(run, 2)
        run.finish(Pretender())  # type: ignore[arg-type]
    assert run.manifest.exists()
    run.manifest.unlink()  # the next Snakemake knows nothing of the end and removes the output
    with open_run(layout, plan()) as again:
        assert (again.finished, again.resumed_step) == (False, 2)


def test_a_sentinel_without_complete_was_a_kill_in_between(layout: Layout):
    with open_run(layout, plan()) as run:
        run.finish(Pretender())  # type: ignore[arg-type]
    run.complete.unlink()
    content = written(layout) | {"status": "running"}
    (run.state / "run.json").write_text(json.dumps(content))
    with open_run(layout, plan()) as again:
        assert again.finished
        assert again.complete.exists()
    assert written(layout)["status"] == "finished"


def test_too_few_steps_are_no_result(layout: Layout):
    with pytest.raises(RuntimeError, match="stopped at step 4 of 9"), open_run(layout, plan(max_steps=9)) as run:
        run.finish(Pretender())  # type: ignore[arg-type]
    assert not run.manifest.exists()
    assert written(layout)["status"] == "failed"


def test_a_crash_is_recorded_with_its_reason(layout: Layout):
    with pytest.raises(ZeroDivisionError), open_run(layout, plan()):
        _ = 1 // 0
    assert written(layout)["status"] == "failed"
    assert written(layout)["error"] == "ZeroDivisionError: integer division or modulo by zero"


def test_others_can_read_how_far_it_is(layout: Layout):
    with open_run(layout, plan()) as run:
        checkpoint(run, 2)
        progress = read_progress(layout, "runs/base/seed1")
        assert progress is not None
        assert (progress.condition, progress.step, progress.max_steps) == ("running", 3, 4)
    progress = read_progress(layout, "runs/base/seed1")
    assert progress is not None
    assert progress.condition == "finished"


# MERGED FROM test_lock.py:


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlassay.training.state.SECONDS_FOR_A_PROBE", 0.1)
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


# MERGED FROM test_hardware.py:


def test_fewer_gpus_than_declared_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_gpus(0)
    require_gpus(1)
    with pytest.raises(RefusedError, match=r"the study declares gpus: 2, but this job sees 1\. Raise the cap"):
        require_gpus(2)


def test_peak_memory_is_that_of_this_process():
    # A process that has imported torch holds more than 100 MiB and, in these tests, less than 100 GiB.
    assert 100 < peak_memory_mb() < 100_000


# MERGED FROM test_workflow_process.py:

JOB = "from rlassay.training.state import workflow_process as look; above = look(); print(above and above.pid)"
WORKFLOW = """
import os, subprocess, sys
print(os.getpid(), flush=True)
subprocess.run(["bash", "-c", "{python} -c '{job}'; true"], check=True)
"""


def test_the_snakemake_above_the_shell_is_found(tmp_path: Path):
    (tmp_path / "snakemake").write_text(WORKFLOW.format(python=sys.executable, job=JOB))
    done = subprocess.run([sys.executable, str(tmp_path / "snakemake")], capture_output=True, text=True, check=True)
    own, found = done.stdout.split()
    assert found == own


def test_a_job_by_hand_has_none():
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"

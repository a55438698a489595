"""The decisions of `open_run`, with a fake trainer; `test_survival.py` kills real ones."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from rlassay.layout import Layout
from rlassay.progress import read_progress
from rlassay.training.checkpoints import seal
from rlassay.training.state import Run, RunPlan, open_run


class Pretender:
    """A trainer with the members that `Run.finish` uses."""

    model = None

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


def test_a_killed_job_resumes_and_drops_the_steps_after_its_checkpoint(layout: Layout):
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
def test_another_identity_starts_from_step_0(layout: Layout, changes: dict[str, Any]):
    killed_after(layout, 2)
    with open_run(layout, plan(**changes)) as run:
        assert (run.resume_from, run.resumed_step) == (None, 0)
        assert sorted(path.name for path in run.state.iterdir()) == ["lock", "run.json"]
    assert len(written(layout)["attempts"]) == 1


def test_a_finished_job_writes_its_manifest_and_does_not_run_again(layout: Layout):
    killed_after(layout, 2)
    with open_run(layout, plan(libraries=("peft",))) as run:
        run.finish(Pretender(), generated_tokens=120)  # type: ignore[arg-type]
    manifest = json.loads(run.manifest.read_text())
    assert (manifest["steps"], manifest["max_steps"], manifest["generated_tokens"], manifest["gpus"]) == (4, 4, 120, 0)
    assert manifest["fingerprint"] == "abcd1234"
    assert manifest["weights"] == "state/weights"
    # sha256 of b"weights".
    assert manifest["sha256"] == {
        "model.safetensors": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    }
    assert [resume["step"] for resume in manifest["resumes"]] == [2]
    assert set(manifest["versions"]) == {"torch", "transformers", "trl", "rlassay", "peft"}
    assert manifest["peak_memory_mb"] > 0
    assert (run.weights / "model.safetensors").read_bytes() == b"weights"
    assert run.complete.exists()
    assert not run.checkpoints.exists()
    with open_run(layout, plan()) as again:
        assert again.finished
    assert json.loads(run.manifest.read_text()) == manifest


def test_the_wait_for_a_server_is_no_time_of_the_job(layout: Layout):
    def killed_while_it_waits() -> None:
        with open_run(layout, plan()) as run, run.waiting():
            time.sleep(1.5)
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        killed_while_it_waits()
    with open_run(layout, plan()) as run:
        with run.waiting():
            time.sleep(1.5)
        vanished = written(layout)
        run.finish(Pretender())  # type: ignore[arg-type]
    assert json.loads(run.manifest.read_text())["seconds"] < 1
    attempts = written(layout)["attempts"]
    assert all(1.5 <= each["waited"] <= each["ended"] - each["started"] for each in attempts)
    # After kill -9 and without a step, the end of the wait is the last sign of life.
    (run.state / "run.json").write_text(json.dumps(vanished))
    progress = read_progress(layout, "runs/base/seed1")
    assert progress is not None
    assert progress.ended == attempts[1]["started"] + attempts[1]["waited"]
    run.manifest.unlink()
    run.complete.unlink()
    with open_run(layout, plan()) as run:
        run.finish(Pretender())  # type: ignore[arg-type]
    assert 0 < json.loads(run.manifest.read_text())["seconds"] < 1


def test_complete_without_a_manifest_is_a_forced_rerun(layout: Layout):
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
    run.manifest.unlink()  # the next Snakemake does not know that it succeeded and removes the output
    with open_run(layout, plan()) as again:
        assert (again.finished, again.resumed_step) == (False, 2)


def test_a_finished_job_that_its_cluster_starts_again_keeps_its_result(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with open_run(layout, plan()) as run:
        run.finish(Pretender())  # pyright: ignore[reportArgumentType]
    before = run.manifest.read_text()
    run.manifest.unlink()  # by the Snakemake in the job, before each start
    with open_run(layout, plan()) as again:
        assert again.finished
    assert run.manifest.read_text() == before

    run.manifest.unlink()
    monkeypatch.setenv("SLURM_JOB_ID", "18")  # another job: the user asked for a rerun
    with open_run(layout, plan()) as forced:
        assert not forced.finished
        assert forced.resume_from is None
        forced.finish(Pretender())  # type: ignore[arg-type]


def test_a_manifest_without_complete_was_a_kill_in_between(layout: Layout):
    with open_run(layout, plan()) as run:
        run.finish(Pretender())  # type: ignore[arg-type]
    run.complete.unlink()
    content = written(layout) | {"status": "running"}
    (run.state / "run.json").write_text(json.dumps(content))
    with open_run(layout, plan()) as again:
        assert again.finished
        assert again.complete.exists()
    assert written(layout)["status"] == "finished"


def test_too_few_steps_are_an_error(layout: Layout):
    with pytest.raises(RuntimeError, match="stopped at step 4 of 9"), open_run(layout, plan(max_steps=9)) as run:
        run.finish(Pretender())  # type: ignore[arg-type]
    assert not run.manifest.exists()
    assert written(layout)["status"] == "failed"


def test_a_crash_is_recorded_with_its_reason(layout: Layout):
    with pytest.raises(ZeroDivisionError), open_run(layout, plan()):
        _ = 1 // 0
    assert written(layout)["status"] == "failed"
    assert written(layout)["error"] == "ZeroDivisionError: integer division or modulo by zero"


def test_other_processes_can_read_its_progress(layout: Layout):
    with open_run(layout, plan()) as run:
        checkpoint(run, 2)
        progress = read_progress(layout, "runs/base/seed1")
        assert progress is not None
        assert (progress.condition, progress.step, progress.max_steps) == ("running", 3, 4)
    progress = read_progress(layout, "runs/base/seed1")
    assert progress is not None
    assert progress.condition == "finished"

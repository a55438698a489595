"""`rlassay status`: every policy on a line, from disk alone."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from rlassay.cli import status
from rlassay.cli.main import main
from rlassay.config import load_study
from rlassay.layout import Layout
from rlassay.tracking.links import Links, keep_links
from tests.tracking.folders import FakeJob, keep_curve, small_folder, small_study

RUN = "runs/base/seed1"


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    study = load_study("digits", "tiny")
    return FakeJob.of(study, Layout(root=tmp_path / study.id), RUN)


def printed(job: FakeJob, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """First words of each line -> the line."""
    results = str(job.layout.root.parent)
    assert main(["status", "--study", "digits", "--scale", "tiny", "--results", results]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    names = ("digits-tiny", "untrained model", "warm start", "base seed 1:", "base seed 1", "base seed 2")
    return {name: line for name in names for line in lines if line.startswith(name)}


def test_before_the_start_everything_waits(job: FakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(job, capsys)
    assert lines["digits-tiny"] == "digits-tiny: 9 waiting"
    assert lines["base seed 1"].split() == ["base", "seed", "1", "waiting", "0/4"]
    assert lines["untrained model"].split() == ["untrained", "model"]


def test_a_running_job_has_a_bar_a_reward_and_an_end_in_sight(job: FakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    job.note("running")
    job.log([1, 2, 3])
    with job.at_work():
        line = printed(job, capsys)["base seed 1"]
    assert "running" in line
    assert "━" * (status.BAR_WIDTH // 2) in line  # 3 of 6 steps
    assert line.split()[-3:] == ["3/6", "0.300", "0:03"]


def test_the_newest_point_of_the_held_out_curve_is_shown(job: FakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = job.study.evaluation.model_copy(update={"every": 2})
    study = job.study.model_copy(update={"evaluation": evaluation})
    job.note("running")
    job.log([1, 2, 3, 4])
    keep_curve(job, "test", {2: 0.25, 4: 0.4375})
    with job.at_work():
        Console(width=100).print(status.table(study, job.layout))
    lines = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["base seed 1"].split()[-2:] == ["0.438", "@4"]
    assert "held-out" in lines["run"]
    assert "@" not in lines["base seed 2"]


def test_who_is_killed_failed_or_finished_is_told_apart(job: FakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    other = FakeJob.of(job.study, job.layout, "runs/base/seed2")
    job.note("running")  # and nobody holds its lock
    other.note("failed", error="ValueError: [red]no luck[/red]")
    lines = printed(job, capsys)
    assert lines["digits-tiny"] == "digits-tiny: 7 waiting, 1 killed, 1 failed"
    assert "killed" in lines["base seed 1"]

    job.note("finished")
    job.write_manifest()
    job.score(choice_accuracy=0.5)
    lines = printed(job, capsys)
    assert lines["base seed 1"].split()[3] == "finished"
    assert lines["base seed 1"].split()[-1] == "test"
    job.layout.train_manifest(RUN).unlink()  # forced to be made again
    assert printed(job, capsys)["base seed 1"].split()[3:] == ["waiting", "0/4", "test"]


def test_the_error_of_a_failed_job_is_shown_as_it_is(job: FakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    job.note("failed", error="ValueError: [red]no luck[/red]")
    assert printed(job, capsys)["base seed 1:"] == "base seed 1: ValueError: [red]no luck[/red]"


def test_watching_goes_on_until_ctrl_c(
    job: FakeJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def interrupted(seconds: float) -> None:
        looks.append(seconds)
        job.note("finished")
        job.write_manifest()
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    results = str(job.layout.root.parent)
    arguments = ["status", "--study", "digits", "--scale", "tiny", "--results", results]
    assert main([*arguments, "--watch", "--interval", "0.5"]) == 0
    assert looks == [0.5] * 3
    assert "1 finished" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (61.0, "1:01"), (3723.0, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert status.duration(seconds) == text


def test_it_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys; from rlassay.cli.main import main; main(['status']); print({'torch', 'mlflow'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "set()"


def test_a_finished_study_ends_with_its_verdicts_its_page_and_its_runs(tmp_path: Path) -> None:
    study = small_study()
    layout = small_folder(tmp_path, study)
    for row in status.status_rows(study, layout):
        one = FakeJob.of(study, layout, row.policy)
        if row.max_steps:
            one.note("finished")
            one.log(range(1, 7))
            one.write_manifest()
        one.score(accuracy=0.5)
    content = {"headline": "Of the two, 'plain' hurts.", "verdicts": [{"sentence": "'plain' is worse."}]}
    layout.report.mkdir(parents=True, exist_ok=True)
    (layout.report / "report.json").write_text(json.dumps(content))
    keep_links(layout.tracking, Links(uri="sqlite:///mlflow.db", arms="http://127.0.0.1:5000/#/experiments/1/runs"))
    assert status.conclusion(study, layout) == [
        "Of the two, 'plain' hurts.",
        "  'plain' is worse.",
        f"Page: {layout.report / 'index.html'}",
        "MLflow, the arms side by side: http://127.0.0.1:5000/#/experiments/1/runs",
    ]
    layout.scores(RUN, "test").unlink()  # to be made again: the report is of earlier results
    assert status.conclusion(study, layout) == []

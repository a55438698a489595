"""Notes of failed jobs, and the lines that sum them up."""

from pathlib import Path

import pytest

from rlassay.cli.failures import failures, noted, summary
from rlassay.cli.main import main
from rlassay.config import load_study
from rlassay.config.policies import policies
from rlassay.layout import Layout

STUDY = load_study("digits", "tiny")
RUNS = [folder for folder in policies(STUDY) if folder.startswith("runs/")]


def fail(layout: Layout, stage: str, policy: str | None, split: str | None, error: Exception) -> None:
    with pytest.raises(type(error)), noted(layout, stage, policy, split):
        raise error


def test_the_same_error_of_many_runs_is_one_line(tmp_path: Path):
    layout = Layout(root=tmp_path)
    for number, run in enumerate(RUNS[:3]):
        fail(layout, "rl_train", run, None, ValueError(f"prompt {'deadbeef' * 2}{number}: no\n  luck"))
    fail(layout, "score", RUNS[3], "test", OSError("disk full"))
    assert summary(failures(STUDY, layout)) == [
        f"1 run failed (score test of {RUNS[3]}): OSError: disk full",
        f"3 runs failed with the same error (the first: rl_train of {RUNS[0]}): "
        "ValueError: prompt deadbeefdeadbeef0: no luck",
    ]


def test_the_next_start_removes_the_note(tmp_path: Path):
    layout = Layout(root=tmp_path)
    fail(layout, "prepare_data", None, None, ValueError("no"))
    assert summary(failures(STUDY, layout)) == ["1 job failed (prepare_data): ValueError: no"]
    with noted(layout, "prepare_data", None, None):
        assert failures(STUDY, layout) == []
    assert failures(STUDY, layout) == []


def test_a_kill_leaves_no_note_and_old_notes_can_be_left_out(tmp_path: Path):
    layout = Layout(root=tmp_path)
    with pytest.raises(SystemExit), noted(layout, "prepare_data", None, None):
        raise SystemExit(143)
    assert failures(STUDY, layout) == []
    fail(layout, "ablation_report", None, None, ValueError("x" * 1000))
    (found,) = failures(STUDY, layout)
    assert failures(STUDY, layout, since=found.ended + 1) == []
    assert len(summary([found])[0]) < 400


@pytest.mark.parametrize("folder", [RUNS[0], next(iter(policies(STUDY)))])
def test_status_says_failed_where_scoring_failed(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    layout = Layout(root=tmp_path / STUDY.id)
    layout.root.mkdir()
    fail(layout, "score", folder, "test", ValueError("no luck"))
    assert main(["status", "--study", "digits", "--scale", "tiny", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "1 failed" in printed
    assert "score test: ValueError: no luck" in printed
    layout.scores(folder, "test").parent.mkdir(parents=True, exist_ok=True)
    layout.scores(folder, "test").touch()
    assert main(["status", "--study", "digits", "--scale", "tiny", "--results", str(tmp_path)]) == 0
    assert "failed" not in capsys.readouterr().out

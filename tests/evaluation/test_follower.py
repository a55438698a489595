"""A process beside the training judges the held-out curve as it goes: the same points, and training never suffers."""

import json
import shutil
import signal
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from rlassay.config import Study
from rlassay.config.fingerprints import evaluation_id
from rlassay.evaluation.curve import run_curve
from rlassay.layout import Layout
from rlassay.progress import is_held, read_curve_points, read_progress
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft
from tests.evaluation.tiny import only
from tests.launcher import Attempt, Launcher, wait_until
from tests.training.short_run import RUN, command, fresh_layout, load_short, policy_of, proof

EDITS = {"rl__max_steps": 6, "evaluation__every": 2, "evaluation__num_samples": 2, "rl__save_steps": 3}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A run whose curve, of steps 2 and 4, is judged when it has trained."""
    folder = tmp_path_factory.mktemp("plain")
    study, layout = load_short(folder, **EDITS), fresh_layout(folder / "results")
    run_sft(study, layout, only(study, "sft"))
    run_rl(study, layout, policy_of(study))
    run_curve(study, layout, policy_of(study))
    return layout


@pytest.fixture
def layout(plain: Layout, tmp_path: Path) -> Layout:
    """The study's results before RL."""
    shutil.copytree(plain.root, tmp_path / "results" / "digits", ignore=shutil.ignore_patterns("runs"))
    return Layout(root=tmp_path / "results" / "digits")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return load_short(tmp_path, **EDITS, evaluation__while_training=True)


def points(layout: Layout) -> list[int]:
    progress = read_progress(layout, RUN)
    return (
        [] if progress is None else [point.step for point in read_curve_points(layout, RUN, "test", progress.identity)]
    )


def process_beside(job: Attempt) -> psutil.Process:
    """The process that a training job has started."""
    found: list[psutil.Process] = []

    def look() -> bool:
        children = psutil.Process(job.pid).children()
        found[:] = [each for each in children if "rlassay.evaluation.follower" in each.cmdline()]
        return len(found) == 1

    wait_until(look)
    return found[0]


def stopped_at_weights(launcher: Launcher, layout: Layout, tmp_path: Path) -> tuple[Attempt, psutil.Process]:
    """A training that is stopped with its first weights kept, and the process beside it."""
    job = launcher.start(["rl_train", *command(tmp_path, layout.root.parent)], tmp_path / "log")
    wait_until(lambda: any(layout.intermediate(RUN).glob("checkpoint-*")))
    job.send(signal.SIGSTOP)
    return job, process_beside(job)


def assert_same_result(layout: Layout, plain: Layout, study: Study) -> None:
    run_curve(study, layout, policy_of(study))
    ours, theirs = (load_file(each.state(RUN) / "weights/model.safetensors") for each in (layout, plain))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert pq.read_table(layout.curve(RUN, "test")).equals(pq.read_table(plain.curve(RUN, "test")))
    assert pq.read_table(layout.curve(RUN, "test")).num_rows > 0
    assert points(layout) == points(plain) == [2, 4]
    assert not layout.intermediate(RUN).exists()


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_the_option_identifies_no_result(study: Study, tmp_path: Path):
    off = load_short(tmp_path, **EDITS)
    assert policy_of(study).fingerprint == policy_of(off).fingerprint
    recipe = policy_of(study).recipe
    assert evaluation_id(study, recipe) == evaluation_id(off, recipe)
    assert repr(study) == repr(off)


def test_a_point_is_known_before_the_run_has_trained_and_a_killed_run_goes_on_with_another_process(
    study: Study, layout: Layout, plain: Layout, launcher: Launcher, tmp_path: Path
):
    job, beside = stopped_at_weights(launcher, layout, tmp_path)
    wait_until(lambda: points(layout)[:1] == [2])
    assert not layout.train_manifest(RUN).exists()
    assert is_held(layout.state(RUN))  # the training lives
    job.send(signal.SIGKILL)
    job.wait()
    wait_until(partial(has_ended, beside), 10)

    again = launcher.start(["rl_train", *command(tmp_path, layout.root.parent)], tmp_path / "log")
    beside = process_beside(again)
    assert again.wait() == 0, (tmp_path / "log").read_text()[-3000:]

    assert len(proof(layout)["resumes"]) == 1
    assert has_ended(beside)
    assert_same_result(layout, plain, study)


def test_a_killed_process_costs_a_warning_and_the_rule_judges_the_rest(
    study: Study, layout: Layout, plain: Layout, launcher: Launcher, tmp_path: Path
):
    job, beside = stopped_at_weights(launcher, layout, tmp_path)
    beside.kill()
    job.send(signal.SIGCONT)
    assert job.wait() == 0

    assert "ended (status -9); the rule held_out_curve evaluates what is left" in (tmp_path / "log").read_text()
    assert_same_result(layout, plain, study)


def test_a_failing_process_leaves_its_traceback_and_the_training_ends_well(
    study: Study, layout: Layout, plain: Layout, launcher: Launcher, tmp_path: Path
):
    rows = layout.split("test").read_text()
    layout.split("test").write_text("no rows\n")
    job, _ = stopped_at_weights(launcher, layout, tmp_path)
    wait_until(lambda: "no longer evaluated while it trains" in (tmp_path / "log").read_text())
    job.send(signal.SIGCONT)
    assert job.wait() == 0

    assert "Traceback" in (tmp_path / "log").read_text()
    layout.split("test").write_text(rows)
    assert_same_result(layout, plain, study)


def test_scored_steps_are_not_scored_again(layout: Layout, plain: Layout, tmp_path: Path):
    shutil.copytree(plain.root / RUN, layout.root / RUN)
    before = json.loads(layout.curve_record(RUN, "test").read_text())
    study = load_short(tmp_path, **EDITS)

    run_curve(study, layout, policy_of(study))
    assert json.loads(layout.curve_record(RUN, "test").read_text()) == before

    other = load_short(tmp_path, **EDITS, rewards__soft_overlong__options={"max_completion_length": 10, "cache": 4})
    run_curve(other, layout, policy_of(other))
    after = json.loads(layout.curve_record(RUN, "test").read_text())
    assert after["steps"] == before["steps"]
    assert after["scorers"] != before["scorers"]
    assert all(new["time"] > old["time"] for new, old in zip(after["points"], before["points"], strict=True))

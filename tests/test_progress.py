"""How far a job is, read from run directories that the real `open_run` wrote."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlassay.layout import Layout
from rlassay.progress import Progress, is_held, read_progress
from rlassay.training.state import RunPlan, open_run

POLICY = "runs/base/seed1"
PLAN = RunPlan(
    policy=POLICY,
    stage="rl",
    arm="base",
    seed=1,
    max_steps=10,
    gpus=0,
    fingerprint="0123abcd",
    inputs={"code": "c0de"},
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(root=tmp_path)


def log(layout: Layout, *lines: tuple[int, float, float | None]) -> None:
    """Append lines of (step, seconds after the start of the newest attempt, reward)."""
    run = json.loads((layout.state(POLICY) / "run.json").read_bytes())
    with layout.metrics(POLICY).open("a") as out:
        for step, seconds, reward in lines:
            out.write(json.dumps({"step": step, "time": run["started"] + seconds, "reward": reward}) + "\n")


def progress(layout: Layout) -> Progress:
    """The progress of a job that has started."""
    found = read_progress(layout, POLICY)
    assert found is not None
    return found


def test_a_job_that_never_started_has_no_progress(layout: Layout) -> None:
    assert read_progress(layout, POLICY) is None
    assert not is_held(layout.state(POLICY))


def test_a_running_job_tells_step_reward_and_what_is_left(layout: Layout) -> None:
    with open_run(layout, PLAN):
        begun = progress(layout)
        assert (begun.condition, begun.step, begun.max_steps, begun.reward) == ("running", 0, 10, None)
        assert begun.seconds_left is None
        # Steps took 2, 2 and 8 seconds: the median says 2 each for the 6 that are left.
        log(layout, (1, 1.0, 0.1), (2, 3.0, 0.2), (3, 5.0, 0.3), (4, 13.0, None))
        found = progress(layout)
    assert (found.condition, found.step, found.reward) == ("running", 4, 0.3)
    assert found.seconds_left == pytest.approx(12.0)
    assert found.ended is None
    assert progress(layout).condition == "finished"
    assert progress(layout).seconds_left is None


def test_an_exception_is_told_and_sigterm_is_a_kill(layout: Layout) -> None:
    with pytest.raises(ValueError, match="no luck"), open_run(layout, PLAN):
        raise ValueError("no luck")
    failed = progress(layout)
    assert (failed.condition, failed.error) == ("failed", "ValueError: no luck")
    with pytest.raises(SystemExit), open_run(layout, PLAN):
        signal.raise_signal(signal.SIGTERM)
    killed = progress(layout)
    assert (killed.condition, killed.error) == ("killed", None)
    assert killed.identity == failed.identity  # it went on
    with open_run(layout, PLAN):
        pass
    layout.train_manifest(POLICY).unlink(missing_ok=True)
    (layout.state(POLICY) / "COMPLETE").touch()  # the user asked for it to be made again
    with open_run(layout, PLAN):
        pass
    assert progress(layout).identity != killed.identity


def test_whoever_vanished_was_killed_when_it_last_logged(layout: Layout) -> None:
    with open_run(layout, PLAN):
        log(layout, (1, 1.0, 0.1), (2, 3.5, 0.2))
        running = (layout.state(POLICY) / "run.json").read_bytes()
    (layout.state(POLICY) / "run.json").write_bytes(running)  # as kill -9 leaves it
    found = progress(layout)
    assert found.condition == "killed"
    assert found.ended == pytest.approx(found.started + 3.5)
    assert found.seconds_left is None


def test_a_lock_that_another_process_holds_is_seen(layout: Layout) -> None:
    state = layout.state(POLICY)
    state.mkdir(parents=True)
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(state / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_held(state)
        holder.communicate("\n")
    assert not is_held(state)


def test_a_resumed_job_is_timed_by_its_own_steps_and_a_torn_line_is_no_step(layout: Layout) -> None:
    with open_run(layout, PLAN):
        log(layout, (1, -1000.0, 0.1), (2, 1.0, 0.2), (3, 2.5, 0.3))
        with layout.metrics(POLICY).open("a") as out:
            out.write('{"step": 4, "ti')
        found = progress(layout)
    assert (found.step, found.seconds_per_step) == (3, 1.5)


def test_a_long_file_is_read_from_its_end(layout: Layout) -> None:
    with open_run(layout, PLAN):
        log(layout, *((step, float(step), step / 1000) for step in range(1, 5001)))
        found = progress(layout)
    assert (found.step, found.reward, found.seconds_per_step) == (5000, 5.0, 1.0)

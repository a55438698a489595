"""The process that judges held-out curves beside a training that two processes share: no kill costs a score."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from rlassay.files import read_json
from rlassay.layout import Layout
from tests.evaluation.test_follower import EDITS, has_ended, points
from tests.launcher import Launcher, wait_until
from tests.training.short_run import RUN, fresh_layout, has_logged, load_short, proof, rollouts, timeless_metrics
from tests.training.test_shared_jobs import HALF, fork_ranks, layout_of, run, start, warm_start

SAVED: dict[str, Any] = EDITS | HALF | {"rl__save_steps": 2}


@pytest.fixture(scope="module")
def plain(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two processes, whose curve is judged when it has trained."""
    folder = tmp_path_factory.mktemp("plain")
    study = load_short(folder, **SAVED)
    fresh_layout(folder / "results")
    run(folder, "sft_train", "--policy", warm_start(study))
    fork_ranks(launcher, folder, "rl_train", RUN)
    fork_ranks(launcher, folder, "held_out_curve", RUN)
    return folder


def point_at_2(layout: Layout) -> dict[str, Any]:
    """The first point of the curve, with its time."""
    record = read_json(layout.curve_record(RUN, "test"))
    return {} if record is None else next((point for point in record["points"] if point["step"] == 2), {})


def processes_of(job: "subprocess.Popen[str]") -> tuple[psutil.Process, list[psutil.Process]]:
    """The process beside a training, and its ranks in order, once all of them run."""
    beside: list[psutil.Process] = []
    ranks: dict[str, psutil.Process] = {}

    def look() -> bool:
        for each in psutil.Process(job.pid).children(recursive=True):
            with suppress(psutil.Error):  # it has just ended
                words, environment = each.cmdline(), each.environ()
                if "rlassay.evaluation.follower" in words:
                    beside[:] = [each]
                elif "RANK" in environment and "rlassay.cli.stages" in words:
                    ranks[environment["RANK"]] = each
        return len(beside) == 1 and len(ranks) == 2

    wait_until(look, 180)
    return beside[0], [ranks["0"], ranks["1"]]


def test_neither_a_killed_rank_nor_a_killed_follower_costs_a_score(plain: Path, launcher: Launcher, tmp_path: Path):
    study = load_short(tmp_path, **SAVED, evaluation__while_training=True)
    layout, policy = fresh_layout(tmp_path / "results"), warm_start(study)
    (layout.root / policy).parent.mkdir()
    (layout.root / policy).symlink_to(layout_of(plain).root / policy)

    # A rank dies when the first point is known: the job fails, and the process beside it ends.
    job = start(tmp_path, "rl_train", "--policy", RUN)
    beside, ranks = processes_of(job)
    wait_until(lambda: has_logged(layout, 3), 180)
    for pid in (job.pid, *(rank.pid for rank in ranks)):  # the launcher first: it ends ranks that give no sign of life
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: points(layout) == [2], 180)
    assert not layout.train_manifest(RUN).exists()
    ranks[1].kill()
    ranks[0].resume()
    os.kill(job.pid, signal.SIGCONT)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 1, output
    wait_until(lambda: has_ended(beside), 10)
    first = point_at_2(layout)

    # The training goes on, and loses the new process beside it.
    job = start(tmp_path, "rl_train", "--policy", RUN)
    beside, _ = processes_of(job)
    beside.kill()
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert "ended (status -9); the rule held_out_curve evaluates what is left" in output

    # What is left is judged when the run has trained; the first point is not judged again.
    assert proof(layout)["resumes"][0]["step"] >= 2
    assert points(layout) == [2]
    fork_ranks(launcher, tmp_path, "held_out_curve", RUN)
    assert point_at_2(layout) == first != {}
    assert_same_result(layout, layout_of(plain))


def assert_same_result(layout: Layout, plain: Layout) -> None:
    """The weights, metrics, rollouts, completions and scores of the run that was judged when it had trained."""
    assert points(layout) == points(plain) == [2, 4]
    assert pq.read_table(layout.curve(RUN, "test")).equals(pq.read_table(plain.curve(RUN, "test")))
    assert pq.read_table(layout.curve(RUN, "test")).num_rows > 0
    for step in (2, 4):
        ours, theirs = (each.curve_completions(RUN, "test", step).read_bytes() for each in (layout, plain))
        assert ours == theirs
    assert proof(layout)["sha256"] == proof(plain)["sha256"]
    assert timeless_metrics(layout) == timeless_metrics(plain)
    assert rollouts(layout) == rollouts(plain)
    assert not layout.intermediate(RUN).exists()

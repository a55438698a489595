"""Terminal output while a study runs: short lines, and the study's progress."""

import json
import logging
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from rlassay.cli.status import status_rows, training_left
from rlassay.cli.terminal import LONGEST, SNAKEMAKE_LOG, StudyLines, follow_jobs, opening, shorten_lines, shortened
from rlassay.config import load_study
from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.records import RejectedRecord, SplitFacts
from tests.tracking.folders import FakeJob, small_folder, small_study

Event = Enum("Event", ["JOB_INFO", "JOB_FINISHED", "JOB_ERROR"])


def record(**about: Any) -> logging.LogRecord:
    """A record of Snakemake's log."""
    made = logging.LogRecord(SNAKEMAKE_LOG, logging.INFO, "", 0, "", (), None)
    vars(made).update(about)
    return made


def started(job: int, rule: str, policy: str | None = None, split: str | None = None) -> logging.LogRecord:
    wildcards = {key: value for key, value in (("policy", policy), ("set", split)) if value is not None}
    return record(event=Event.JOB_INFO, jobid=job, rule_name=rule, wildcards=wildcards)


def finished(job: int) -> logging.LogRecord:
    return record(event=Event.JOB_FINISHED, job_id=job)


class Terminal:
    """A study, and what its lines on the terminal are."""

    def __init__(self, folder: Path) -> None:
        self.study = small_study(seeds=(1, 2))
        self.layout = small_folder(folder, self.study)
        self.text = ""
        self.lines = StudyLines(self.study, self.layout, self.write)

    def write(self, text: str) -> None:
        self.text += text

    def trained(self, folder: str, seconds_per_step: float = 1.0, steps: int = 6) -> None:
        """A job that took so many steps; it is finished after all six."""
        job = FakeJob.of(self.study, self.layout, folder)
        job.note("finished" if steps == 6 else "running")
        job.log(range(1, steps + 1))
        path = self.layout.metrics(folder)
        path.write_text("".join(_slower(line, seconds_per_step) for line in path.read_text().splitlines()))
        if steps == 6:
            job.write_manifest()


def _slower(line: str, factor: float) -> str:
    logged = json.loads(line)
    return json.dumps(logged | {"time": 1_700_000_000.0 + factor * logged["step"]}) + "\n"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_lists_of_files_are_cut_down():
    files = [f"results/runs/arm{number}/train.json" for number in range(40)]
    cut = record(
        event=Event.JOB_INFO,
        input=files,
        output=files[:1],
        reason=f"Missing output files: {files[0]}; Input files updated by another job: {', '.join(files)}",
    )
    assert shortened(cut)
    about = vars(cut)
    assert about["input"] == [f"{files[0]} and 39 more"]
    assert about["output"] == files[:1]
    assert about["reason"] == (
        f"Missing output files: {files[0]}; Input files updated by another job: {files[0]} and 39 more"
    )


def test_a_reason_without_files_is_cut_at_a_length():
    cut = record(reason=f"Params have changed since last execution {'x' * 2000}; Forced execution")
    shortened(cut)
    changed, forced = vars(cut)["reason"].split("; ")
    assert (len(changed), forced) == (LONGEST + len("..."), "Forced execution")


def test_a_finished_run_shows_its_reward_and_the_time_that_the_study_takes(terminal: Terminal):
    warm_start = next(row.policy for row in status_rows(terminal.study, terminal.layout) if row.stage == "sft")
    terminal.trained(warm_start)
    terminal.lines.emit(started(1, "sft_train", warm_start))
    terminal.lines.emit(finished(1))
    # Nothing is known of how long a step of RL takes.
    assert terminal.text == "warm start: 6 steps, reward 0.600; 1 of 5 trained\n"

    terminal.text = ""
    terminal.lines.emit(started(2, "rl_train", "runs/base/seed1"))
    terminal.lines.emit(started(3, "rl_train", "runs/base/seed2"))
    terminal.trained("runs/base/seed1", seconds_per_step=10.0)
    terminal.lines.emit(finished(2))
    # Three runs of 6 steps are left, 10 s each step, two at a time: 3 x 60 s / 2.
    assert terminal.text == "base seed 1: 6 steps, reward 0.600; 2 of 5 trained, about 1:30 of training left\n"


def test_the_longest_job_bounds_the_time_left(terminal: Terminal):
    for row in status_rows(terminal.study, terminal.layout):
        if row.max_steps and row.policy != "runs/plain/seed2":
            terminal.trained(row.policy, seconds_per_step=2.0)
    terminal.trained("runs/plain/seed2", seconds_per_step=7.0, steps=2)
    rows = status_rows(terminal.study, terminal.layout)
    assert training_left(rows, 4) == pytest.approx(4 * 7.0)


def test_a_scored_policy_shows_its_held_out_score_and_the_time_left_of_the_whole_study(terminal: Terminal, monkeypatch):
    clock = iter([0.0, 20.0, 20.0, 24.0])
    monkeypatch.setattr("rlassay.cli.terminal.time.monotonic", lambda: next(clock))
    for row in status_rows(terminal.study, terminal.layout):
        if row.max_steps:
            terminal.trained(row.policy)
    terminal.lines.emit(started(1, "generate", "runs/base/seed1", "test"))
    terminal.lines.emit(finished(1))
    assert terminal.text == ""
    terminal.lines.emit(started(2, "score", "runs/base/seed1", "test"))
    FakeJob.of(terminal.study, terminal.layout, "runs/base/seed1").score(accuracy=0.25)
    terminal.lines.emit(finished(2))
    # All are trained; 5 of 6 policies are to be evaluated, 20 s + 4 s each, one at a time.
    assert terminal.text == "base seed 1: accuracy 0.250 on test; 1 of 6 scored, about 2:00 left\n"


def test_lines_of_the_scheduler_are_left_out():
    assert not shortened(record(msg="Select jobs to execute..."))
    assert not shortened(record(msg="Execute 12 jobs..."))
    assert shortened(record(msg="Building DAG of jobs..."))


def test_failed_jobs_say_so_and_unscored_ones_nothing(terminal: Terminal):
    terminal.lines.emit(started(1, "score", "runs/base/seed1", "test"))
    terminal.lines.emit(finished(1))
    terminal.lines.emit(started(2, "rl_train", "runs/base/seed1"))
    terminal.lines.emit(record(event=Event.JOB_ERROR, jobid=2))
    terminal.lines.emit(finished(2))
    terminal.lines.emit(record(event=None))
    assert terminal.text == "rl_train runs/base/seed1: failed\n"


def test_a_scale_names_the_data_and_models_that_replace_those_of_the_study():
    line = "Scale tiny, for a look at the page: data moving_digits, model tiny_vlm, short runs"
    assert line in opening(load_study("s3_video", "tiny")).splitlines()
    assert "Scale" not in opening(load_study("clips"))


def test_the_data_stage_says_how_many_rows_it_kept_and_where_the_first_of_a_reason_is(terminal: Terminal):
    refused = {"leak: the prompt of a row of 'test'": 4, "duplicate: nearly the same": 17, "video: no such file": 2}
    places = [("a.json: record 3", "/data/a.mp4"), ("a.json: record 5", "/data/b.mp4")]
    rejected = [RejectedRecord(where=where, reason="video: no such file", detail=detail) for where, detail in places]
    rejected.append(RejectedRecord(where="a.json: record 1", reason="duplicate: nearly the same", detail=""))
    train = SplitFacts(rows=7, records=30, refused=refused, rejected=tuple(rejected))
    splits = {"train": train, "test": SplitFacts(rows=3, records=3, refused={})}
    content = {"splits": {name: one.model_dump(mode="json") for name, one in splits.items()}}
    write_json(terminal.layout.data_manifest, content)
    terminal.lines.emit(started(1, "prepare_data"))
    terminal.lines.emit(finished(1))
    assert terminal.text.splitlines() == [
        "train: 7 of 30 rows kept",
        "  17 rejected: duplicate: nearly the same (first: a.json: record 1)",
        "  4 rejected: leak: the prompt of a row of 'test'",
        "  2 rejected: video: no such file (first: a.json: record 3: /data/a.mp4)",
        "test: 3 of 3 rows kept",
    ]


def test_both_listen_to_the_log_of_snakemake(tmp_path: Path):
    log = logging.getLogger(SNAKEMAKE_LOG)
    filters, handlers = list(log.filters), list(log.handlers)
    try:
        shorten_lines()
        shorten_lines()  # a Snakefile may be read twice
        follow_jobs(small_study(), Layout(root=tmp_path))
        assert log.filters[:-1] == [*filters, shortened]
        assert isinstance(log.filters[-1].__self__, StudyLines)
    finally:
        log.filters, log.handlers = filters, handlers

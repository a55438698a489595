"""What the terminal shows while a study runs: short lines of Snakemake's, and how far the study is as jobs finish."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

from rlassay.cli.status import duration, status_rows, training_left
from rlassay.config import Study
from rlassay.files import read_json
from rlassay.layout import Layout
from rlassay.records import SplitFacts

SNAKEMAKE_LOG = "snakemake.logging"
"""The logger of Snakemake. A record has an `event` with a name, and the facts of the event as attributes."""
FILES_SHOWN = 1
"""Files that a line of Snakemake's names; a report depends on dozens."""
LONGEST = 200
"""Characters of one reason for a job; a change of params quotes both values."""
TRAINING = ("sft_train", "rl_train")


def shorten_lines() -> None:
    """Shorten the lists of files in Snakemake's lines from now on; they reach thousands of characters."""
    logging.getLogger(SNAKEMAKE_LOG).addFilter(shortened)


def follow_jobs(study: Study, layout: Layout) -> None:
    """Print how far the study is whenever a training job or the data stage finishes."""
    logging.getLogger(SNAKEMAKE_LOG).addHandler(StudyLines(study, layout))


def shortened(record: logging.LogRecord) -> bool:
    """Cut the lists of files and the reason of a record down; True, so that it is printed."""
    for name, value in vars(record).items():
        if name in ("input", "output") and isinstance(value, list):
            files = cast("list[object]", value)
            if len(files) > FILES_SHOWN:
                setattr(record, name, [_listed([str(file) for file in files])])
        elif name == "reason" and isinstance(value, str):
            record.reason = "; ".join(_shortened_clause(clause) for clause in value.split("; "))
    return True


def _shortened_clause(clause: str) -> str:
    """`Missing output files: a, b and 3 more`."""
    what, colon, files = clause.partition(": ")
    shown = f"{what}: {_listed(files.split(', '))}" if colon else clause
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def _listed(files: list[str]) -> str:
    more = len(files) - FILES_SHOWN
    return ", ".join(files[:FILES_SHOWN]) + (f" and {more} more" if more > 0 else "")


class StudyLines(logging.Handler):
    """Prints lines about the study when Snakemake's log says that a job has finished.

    A line about a trained policy has its last mean reward, the number of trained policies, and the time that the
    remaining training takes if as many jobs run side by side as did so far.
    """

    def __init__(self, study: Study, layout: Layout, write: Callable[[str], Any] = sys.stderr.write) -> None:
        super().__init__()
        self.study = study
        self.layout = layout
        self.write = write
        self.side_by_side = 1
        """Training jobs that ran at the same time, at most."""
        self._jobs: dict[int, tuple[str, str | None]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        about: dict[str, Any] = vars(record)
        event = getattr(about.get("event"), "name", None)
        if event == "JOB_INFO":
            self._jobs[about["jobid"]] = about["rule_name"], dict(about["wildcards"] or {}).get("policy")
            running = sum(rule in TRAINING for rule, _ in self._jobs.values())
            self.side_by_side = max(self.side_by_side, running)
        elif event == "JOB_ERROR":
            self._jobs.pop(about["jobid"], None)
        elif event == "JOB_FINISHED":
            rule, policy = self._jobs.pop(about["job_id"], ("", None))
            try:
                for line in self.lines(rule, policy):
                    self.write(f"{line}\n")
            except (OSError, ValueError, KeyError):  # a file that is being replaced must not stop the workflow
                self.handleError(record)

    def lines(self, rule: str, policy: str | None) -> Iterator[str]:
        """The lines about a job that has just finished; none about evaluation."""
        if rule == "prepare_data":
            yield from kept_rows(self.layout)
        elif rule in TRAINING and policy is not None:
            rows = status_rows(self.study, self.layout)
            row = next(row for row in rows if row.policy == policy)
            reward = None if row.progress is None else row.progress.reward
            trained = [row for row in rows if row.max_steps]
            finished = sum(row.state == "finished" for row in trained)
            left = training_left(rows, self.side_by_side)
            yield (
                f"{row.name}: {row.step} steps"
                + ("" if reward is None else f", reward {reward:.3f}")
                + f"; {finished} of {len(trained)} trained"
                + (f", about {duration(left)} of training left" if left else "")
            )


def kept_rows(layout: Layout) -> list[str]:
    """How many rows of each split the data stage kept, and why it rejected the others; empty before it has run."""
    splits = (read_json(layout.data_manifest) or {}).get("splits", {})
    return [
        line
        for split, facts in splits.items()
        for line in SplitFacts.model_validate_json(json.dumps(facts)).kept(split)
    ]

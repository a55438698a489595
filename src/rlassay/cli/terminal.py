"""Terminal output while a study runs: Snakemake's lines, shortened, and the study's progress."""

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, cast

from rlassay.cli.status import Row, duration, status_rows, training_left
from rlassay.config import Study
from rlassay.files import read_json
from rlassay.layout import Layout
from rlassay.names import in_words
from rlassay.records import SplitFacts

SNAKEMAKE_LOG = "snakemake.logging"
"""The logger of Snakemake. A record has an `event` with a name, and the facts of the event as attributes."""
FILES_SHOWN = 1
"""Files that a line of Snakemake's names; a report depends on dozens."""
LONGEST = 200
"""Characters of one reason for a job; a change of params quotes both values."""
TRAINING = ("sft_train", "rl_train")
EVALUATION = ("generate", "score")
REPLACED = ("JOB_FINISHED", "PROGRESS")
"""Events that lines about the study replace."""
NOISE = re.compile(r"Select jobs to execute\.\.\.|Execute \d+ jobs?\.\.\.")
"""Lines of Snakemake's scheduler, two per job, that none of its own settings leaves out."""


def opening(study: Study) -> str:
    """Text before the first job; at a scale, it names the data and models."""
    models = sorted({arm.recipe.model.kind for arm in study.arms.values()})
    scaled = (
        f"Scale {study.scale}, for a look at the page: data {study.data.kind}, model {', '.join(models)}, short runs"
    )
    watch = "Watch from another terminal: rlassay status (progress), mlflow ui (curves)"
    return "\n".join([study.title, *([scaled] if study.scale else []), watch])


def shorten_lines() -> None:
    """Shorten the lists of files in Snakemake's lines from now on; they reach thousands of characters."""
    logging.getLogger(SNAKEMAKE_LOG).addFilter(shortened)


def follow_jobs(study: Study, layout: Layout) -> None:
    """Print the study's progress whenever a job fails, or has trained, scored or prepared data."""
    logging.getLogger(SNAKEMAKE_LOG).addFilter(StudyLines(study, layout).replaces)


def shortened(record: logging.LogRecord) -> bool:
    """Shorten the lists of files and the reason in a log record; False for `NOISE`, which is not printed."""
    if isinstance(record.msg, str) and NOISE.fullmatch(record.msg):
        return False
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
    """Prints lines about the study when Snakemake logs that a job has finished.

    A line about a trained policy has its last mean reward, one about a scored policy its held-out score; both have how
    many are done, and the time that the rest takes if as many jobs run side by side as did so far.
    """

    def __init__(self, study: Study, layout: Layout, write: Callable[[str], Any] = sys.stderr.write) -> None:
        super().__init__()
        self.study = study
        self.layout = layout
        self.write = write
        self.side_by_side = 1
        """Training jobs that ran at the same time, at most."""
        self._jobs: dict[int, tuple[str, dict[str, str], float]] = {}
        self._seconds: dict[str, list[float]] = {}
        """Rule -> seconds that its finished jobs took."""

    def replaces(self, record: logging.LogRecord) -> bool:
        """Print the lines about a record; False for one that they replace, so that Snakemake prints none."""
        self.handle(record)
        return getattr(vars(record).get("event"), "name", None) not in REPLACED

    def emit(self, record: logging.LogRecord) -> None:
        about: dict[str, Any] = vars(record)
        event = getattr(about.get("event"), "name", None)
        if event == "JOB_INFO":
            self._jobs[about["jobid"]] = about["rule_name"], dict(about["wildcards"] or {}), time.monotonic()
            running = sum(rule in TRAINING for rule, _, _ in self._jobs.values())
            self.side_by_side = max(self.side_by_side, running)
        elif event == "JOB_ERROR":
            rule, wildcards, _ = self._jobs.pop(about["jobid"], ("", {}, 0.0))
            if rule:
                self.write(f"{rule} {' '.join(wildcards.values())}".rstrip() + ": failed\n")
        elif event == "JOB_FINISHED":
            rule, wildcards, began = self._jobs.pop(about["job_id"], ("", {}, 0.0))
            self._seconds.setdefault(rule, []).append(time.monotonic() - began)
            try:
                for line in self.lines(rule, wildcards):
                    self.write(f"{line}\n")
            except (OSError, ValueError, KeyError):  # a file that is being replaced must not stop the workflow
                self.handleError(record)

    def lines(self, rule: str, wildcards: dict[str, str]) -> Iterator[str]:
        """The lines about a job that has just finished; none if there is nothing to report."""
        policy = wildcards.get("policy")
        if rule == "prepare_data":
            yield from kept_rows(self.layout)
        elif policy is not None and rule in (*TRAINING, "score"):
            rows = status_rows(self.study, self.layout)
            row = next(row for row in rows if row.policy == policy)
            if rule == "score":
                score = held_out(self.study, self.layout, policy, wildcards.get("set", ""))
                if score is not None:
                    scored = sum(bool(row.scored) for row in rows)
                    shown = f"{in_words(self.study.primary.metric)} {score:.3f} on {self.study.primary.set}"
                    yield f"{row.name}: {shown}; {scored} of {len(rows)} scored{self._left(rows)}"
            else:
                reward = None if row.progress is None else row.progress.reward
                trained = [row for row in rows if row.max_steps]
                finished = sum(row.state == "finished" for row in trained)
                shown = f"{row.step} steps" + ("" if reward is None else f", reward {reward:.3f}")
                held = row.held_out
                shown += "" if held is None else f", held-out {held.score:.3f} at step {held.step}"
                yield f"{row.name}: {shown}; {finished} of {len(trained)} trained{self._left(rows)}"

    def _left(self, rows: list[Row]) -> str:
        """`, about 1:30 left`: of training alone until evaluations have been timed; empty where nothing is known."""
        training = training_left(rows, self.side_by_side)
        if training is None:
            return ""
        if not all(rule in self._seconds for rule in EVALUATION):
            return f", about {duration(training)} of training left" if training else ""
        each = sum(median(self._seconds[rule]) for rule in EVALUATION)
        pending = sum(len(self.study.evaluation.sets) - len(row.scored.split()) for row in rows)
        left = training + pending * each / self.side_by_side
        return f", about {duration(left)} left" if left else ""


def held_out(study: Study, layout: Layout, policy: str, split: str) -> float | None:
    """Mean of the primary metric over the completions of a policy; None for another set, or without a score."""
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]

    primary = study.primary
    path = layout.scores(policy, split)
    if split != primary.set or not path.exists():
        return None
    wanted = [("metric", "==", primary.metric), ("mode", "==", primary.mode)]
    table = cast(Any, pq.read_table)(path, columns=["value"], filters=wanted)  # pyright: ignore[reportUnknownMemberType] pyarrow has no stubs
    column: Any = table["value"].drop_null()
    values: list[float] = column.to_pylist()
    return sum(values) / len(values) if values else None


def kept_rows(layout: Layout) -> list[str]:
    """Lines about the rows of each split that the data stage kept and rejected; empty before it has run."""
    splits = (read_json(layout.data_manifest) or {}).get("splits", {})
    return [
        line
        for split, facts in splits.items()
        for line in SplitFacts.model_validate_json(json.dumps(facts)).kept(split)
    ]

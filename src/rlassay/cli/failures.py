"""Notes of failed jobs, beside their logs; the next start of the same job removes its note."""

import atexit
import re
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rlassay.config import Study
from rlassay.config.policies import policies
from rlassay.files import read_json, write_json
from rlassay.layout import Layout
from rlassay.ranks import is_launched

EVALUATION = ("generate", "score")
"""Stages that run for each evaluation set."""
STARTED = time.time()
"""When this process began, unix seconds."""
LONGEST = 300
"""Characters of an error in a summary."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that ended with an exception and has not been started since."""

    stage: str
    """Its stage."""
    policy: str | None
    """Folder of its policy; None for a job of the whole study."""
    split: str | None
    """Its evaluation set, if it has one."""
    error: str
    """Type and text of the exception."""
    ended: float
    """When it failed, unix seconds."""

    @property
    def job(self) -> str:
        """The job in words, such as `score test of runs/base/seed1`."""
        split = "" if self.split is None else f" {self.split}"
        return f"{self.stage}{split}" + ("" if self.policy is None else f" of {self.policy}")


@contextmanager
def noted(layout: Layout, stage: str, policy: str | None, split: str | None) -> Generator[None]:
    """Remove the note of an earlier attempt; leave one if the body fails. A kill leaves none.

    Of several processes the first that fails leaves its note: the others fail because it does.
    """
    path = layout.failure(stage, policy, split)
    if not is_launched():  # else the launcher did
        path.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        note_once(layout, stage, policy, split, f"{type(error).__name__}: {error}")
        raise


def note_once(layout: Layout, stage: str, policy: str | None, split: str | None, error: str) -> None:
    """Leave a note of a failed job, unless one of its processes has."""
    path = layout.failure(stage, policy, split)
    if not layout.root.is_dir() or path.exists():  # refused before anything was written
        return
    with suppress(OSError):  # the disk itself may have failed
        write_json(path, {"stage": stage, "policy": policy, "split": split, "error": error, "ended": time.time()})


def failures(study: Study, layout: Layout, since: float = 0.0) -> list[Failure]:
    """The noted failures of jobs that ended after `since`, in the order of stages."""
    every = policies(study)
    paths = [layout.failure("prepare_data")]
    paths += [layout.failure(f"{each.stage}_train", folder) for folder, each in every.items() if each.is_trained]
    sets = study.evaluation.sets
    paths += [layout.failure(stage, folder, name) for stage in EVALUATION for folder in every for name in sets]
    if study.curve_set is not None:
        paths += [layout.failure("held_out_curve", folder) for folder, each in every.items() if each.stage == "rl"]
    paths += [layout.failure("decide"), layout.failure("ablation_report")]
    notes = [note for path in paths if (note := read_json(path)) is not None]
    return [failure for note in notes if (failure := Failure(**note)).ended >= since]


def summary(found: list[Failure]) -> list[str]:
    """One line per error: the number of jobs with it, the error, and one job.

    Errors that differ only in numbers and ids count as the same.
    """
    groups: dict[str, list[Failure]] = {}
    for failure in found:
        groups.setdefault(re.sub(r"\b[0-9a-f]{8,}\b|\d+", "#", failure.error), []).append(failure)
    return [_line(group) for group in sorted(groups.values(), key=len)]


def _line(group: list[Failure]) -> str:
    first = group[0]
    runs = {failure.policy for failure in group}
    what = "run" if None not in runs else "job"
    count = len(runs) if what == "run" else len(group)
    error = " ".join(first.error.split())
    error = error if len(error) <= LONGEST else f"{error[:LONGEST]}..."
    if count == 1:
        return f"1 {what} failed ({first.job}): {error}"
    return f"{count} {what}s failed with the same error (the first: {first.job}): {error}"


def report_failures(study: Study, layout: Layout) -> None:
    """Print how to continue and, at exit, after Snakemake's own last line, which jobs failed."""
    print("Some jobs failed; finished results are kept. Fix the cause, then run the same command again to continue.")
    atexit.register(lambda: print("\n".join(summary(failures(study, layout, since=STARTED)))))

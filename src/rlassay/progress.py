"""Progress of a training job, read from its `state/` folder alone; loads neither torch nor MLflow."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rlassay.files import read_json
from rlassay.layout import LOCK, Layout
from rlassay.locks import is_locked

Condition = Literal["running", "finished", "collapsed", "killed", "failed"]
TAIL_BYTES = 65_536
RECENT_STEPS = 20  # the rate of the last steps predicts the rest better than the mean since the start


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One training job that has started at least once."""

    identity: str
    """Equal for all attempts that continue each other; a start from step 0 gets a new one."""
    stage: Literal["sft", "rl"]
    """The stage of the job."""
    condition: Condition
    """`running` only while a live process holds the run directory; a job that vanished without a message was killed."""
    step: int
    """Optimiser steps logged."""
    max_steps: int
    """Optimiser steps to do."""
    started: float
    """Start of the first attempt, unix seconds."""
    ended: float | None
    """End of the newest attempt, unix seconds; None while it runs. After `kill -9`: its last sign of life."""
    seconds_per_step: float | None
    """Median of the newest steps; None before the second step of this attempt."""
    reward: float | None
    """The newest logged mean reward; None in a stage without rewards."""
    error: str | None
    """The exception that ended the newest attempt, or the reason why it counts as collapsed."""

    @property
    def seconds_left(self) -> float | None:
        """Estimated time of the remaining steps; None before there is an estimate, or while nothing runs."""
        if self.condition != "running" or self.seconds_per_step is None:
            return None
        return (self.max_steps - self.step) * self.seconds_per_step


def read_progress(layout: Layout, policy: str) -> Progress | None:
    """The progress of one policy's training, or None when it has never started."""
    try:
        run: dict[str, Any] = json.loads(layout.run_record(policy).read_bytes())
    except FileNotFoundError:
        return None
    lines = list(_newest_lines(layout.metrics(policy)))
    attempts = run["attempts"]
    condition: Condition = run["status"]
    ended: float | None = attempts[-1]["ended"]
    if condition == "running" and not is_held(layout.state(policy)):
        condition = "killed"
        ended = max([work_began(attempts[-1]), *(line["time"] for line in lines[-1:])])
    return Progress(
        identity=f"{run['fingerprint']}@{attempts[0]['started']:.3f}",
        stage=run["stage"],
        condition=condition,
        step=lines[-1]["step"] if lines else 0,
        max_steps=run["max_steps"],
        started=attempts[0]["started"],
        ended=ended,
        seconds_per_step=_seconds_per_step(lines, attempts[-1]["started"]),
        reward=next((line["reward"] for line in reversed(lines) if line.get("reward") is not None), None),
        error=run["error"],
    )


def work_began(attempt: dict[str, Any]) -> float:
    """When an attempt of `run.json` began to work, after waiting for its vLLM server; unix seconds."""
    return attempt["started"] + attempt.get("waited", 0.0)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One point of a held-out curve."""

    step: int
    """Optimiser steps done."""
    score: float
    """Mean of the study's primary metric over the completions."""
    time: float
    """When it was scored, unix seconds."""


def read_curve_points(layout: Layout, policy: str, split: str, identity: str) -> list[CurvePoint]:
    """The scored points of a training's held-out curve so far, by step.

    Args:
        layout: paths of the study's files.
        policy: the run's folder.
        split: the evaluation set of the curve.
        identity: that of the training, as in `Progress`; points of an earlier training do not count.
    """
    record = read_json(layout.curve_record(policy, split)) or {}
    if record.get("training") != identity:
        return []
    names = ("step", "score", "time")
    known = (point for point in record["points"] if point["score"] is not None)
    return [CurvePoint(**{name: point[name] for name in names}) for point in known]


def is_held(state: Path) -> bool:
    """Whether a live process works in a `state/` folder: it holds the lock."""
    return is_locked(state / LOCK)


def _newest_lines(metrics: Path) -> Iterator[dict[str, Any]]:
    """The last logged steps, oldest first, without reading a long file whole."""
    try:
        with metrics.open("rb") as content:
            content.seek(max(0, metrics.stat().st_size - TAIL_BYTES))
            tail = content.read()
    except FileNotFoundError:
        return
    for line in tail.split(b"\n")[-RECENT_STEPS - 1 :]:
        try:
            logged = json.loads(line)
        except ValueError:  # cut off by the window, or being written right now
            continue
        if isinstance(logged, dict) and "step" in logged:
            yield logged


def _seconds_per_step(lines: list[dict[str, Any]], since: float) -> float | None:
    recent = [line for line in lines if line["time"] >= since]
    rates = [
        (later["time"] - line["time"]) / (later["step"] - line["step"])
        for line, later in pairwise(recent)
        if later["step"] > line["step"]
    ]
    return median(rates) if rates else None

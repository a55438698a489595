"""The stage `held_out_curve`: evaluate weights that a run kept in the middle of training.

It starts when the run has ended, so that training never waits for it. With `evaluation.while_training`, a process
beside the training runs `follow_curve`, and this stage evaluates the rest. Every step is sampled with the seeds of the
final evaluation, which keeps the noise of a curve low; its weights are removed after that.

The record, `<policy>/curve/<set>.json`:

    key       identifies the completions: their training, prompts and decoding
    training  identity of the training's progress (`rlassay.progress`)
    scorers   identifies the scorers
    steps     steps that have completions
    points    [{"step", "score", "time", "sha256"}] of the scored steps: the mean of the primary metric over the
              completions, or null; unix seconds; the digest of the completions' file
"""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow  # pyright: ignore[reportMissingTypeStubs]
from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

from rlassay import ranks
from rlassay.config.fingerprints import code_digest, evaluation_id, score_id
from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.evaluation.generate import WorkFile, answer_share, answering, plan_batches, wait_for_all_answers
from rlassay.evaluation.score import SCHEMA, log_failures, metrics_of, score_file, write_scores
from rlassay.files import read_json, replacing, sha256, write_json
from rlassay.layout import Layout, checkpoints
from rlassay.progress import read_progress
from rlassay.records import ScoreRow, read_rows, write_rows

POLL = 0.5
"""Seconds between two looks for new weights."""
logger = logging.getLogger(__name__)
pa: Any = pyarrow  # without types, and so is its parquet module
pq: Any = parquet


class _Curve:
    """The held-out curve of one training: its record, and the work that a step takes."""

    def __init__(self, study: Study, layout: Layout, policy: Policy, training: str) -> None:
        self.study, self.layout, self.policy, self.training = study, layout, policy, training
        assert study.curve_set is not None  # the callers see to that
        self.split = study.curve_set
        rows = hashlib.sha256(layout.split(self.split).read_bytes()).hexdigest()
        # Code is left out, since weights that are gone cannot answer again.
        self.key = _digest(policy.folder, training, evaluation_id(study, policy.recipe), rows)
        self.scorers = _digest(score_id(study), code_digest("rlassay.evaluation.score"))
        self.rows = list(read_rows(layout.split(self.split)))
        record = read_json(layout.curve_record(policy.folder, self.split)) or {}
        known = record.get("key") == self.key
        self.steps: list[int] = record["steps"] if known else []
        """Steps that have answered."""
        self.points: list[dict[str, Any]] = record["points"] if known and record["scorers"] == self.scorers else []
        """Their points, of those that are scored."""

    def waiting(self) -> dict[int, Path]:
        """Step -> weights that are kept and have not answered, ascending."""
        kept = checkpoints(self.layout.intermediate(self.policy.folder))
        every = self.study.evaluation.every or 1
        return {step: path for step, path in kept.items() if step % every == 0 and step not in self.steps}

    def answer(self, weights: dict[int, Path]) -> None:
        """Write the completions of steps; processes that share the job answer a part each."""
        folder = self.policy.folder
        batches = plan_batches(self.rows, self.study.evaluation)
        with WorkFile(self.layout.curve_part(folder, self.split), self.key) as done:
            for step, path in weights.items():
                opened = answering(self.study, self.layout, self.policy, path)
                title = f"step {step} of {folder} {self.split}"
                answer_share(done, batches, opened, title, first=step * len(batches))
        wait_for_all_answers()
        if ranks.is_main():
            found = done.done | done.of_all()
            for step in weights:
                answers = (row for batch in batches for row in found[step * len(batches) + batch.number])
                write_rows(self.layout.curve_completions(folder, self.split, step), answers)
            self.steps = sorted({*self.steps, *weights})
            self.write()
            for file in done.files():
                file.unlink()

    def score(self, steps: list[int]) -> None:
        """Score the steps whose completions have no score yet."""
        rows, metrics = {row.prompt_id: row for row in self.rows}, metrics_of(self.study)
        for step in steps:
            source = self.layout.curve_completions(self.policy.folder, self.split, step)
            digest, known = sha256(source), next((point for point in self.points if point["step"] == step), None)
            if known is not None and known["sha256"] == digest:
                continue
            scores = score_file(source, rows, self.study.evaluation, metrics)
            path = self.layout.curve_scores(self.policy.folder, self.split, step)
            write_scores(path, scores, [step] * len(scores))
            point = {"step": step, "score": _mean(scores, self.study), "time": time.time(), "sha256": digest}
            self.points = [*(each for each in self.points if each["step"] != step), point]
            self.write()
        log_failures(metrics)

    def forget_after(self, step: int) -> None:
        """Drop the points after the step from which a training resumes.

        The training keeps weights there again.
        """
        self.steps = [each for each in self.steps if each <= step]
        self.points = [point for point in self.points if point["step"] <= step]
        self.write()

    def write(self) -> None:
        """Write the record."""
        known = {"key": self.key, "training": self.training, "scorers": self.scorers}
        points = sorted(self.points, key=lambda point: point["step"])
        write_json(
            self.layout.curve_record(self.policy.folder, self.split), known | {"steps": self.steps, "points": points}
        )

    def publish(self, steps: list[int]) -> None:
        """Write the scores of steps as one table, the output of the rule."""
        folder = self.policy.folder
        paths = [self.layout.curve_scores(folder, self.split, step) for step in steps]
        none = pa.schema([("step", pa.int64()), *SCHEMA]).empty_table()
        with replacing(self.layout.curve(folder, self.split)) as unfinished:
            pq.write_table(pa.concat_tables([none, *map(pq.read_table, paths)]), unfinished)


def run_curve(study: Study, layout: Layout, policy: Policy) -> None:
    """Write `<policy>/curve/<set>.scores.parquet`: every metric of every completion at every step of the curve.

    Finished batches and scored steps survive a kill, and those of `follow_curve` count. Steps whose weights are gone,
    because an earlier evaluation asked otherwise or the run was trained before the study asked for a curve, are left
    out with a warning.

    Errors: ValueError for a study without `evaluation.every`, and for a run that is not trained yet.
    """
    if study.curve_set is None:
        raise ValueError("evaluation.every is null, so that there is no held-out curve to make")
    manifest, progress = read_json(layout.train_manifest(policy.folder)), read_progress(layout, policy.folder)
    if manifest is None or progress is None:
        raise ValueError(f"{policy.folder} is not trained yet: there is no {layout.train_manifest(policy.folder)}")
    # 1. The steps that have completions, and those whose weights are not evaluated yet.
    curve = _Curve(study, layout, policy, progress.identity)
    wanted = study.curve_points(manifest["steps"])
    # 2. Their completions.
    if weights := {step: path for step, path in curve.waiting().items() if step in wanted}:
        curve.answer(weights)
    # 3. The scores of all steps; the weights have served.
    if ranks.is_main():
        steps = sorted({*curve.steps} & {*wanted})
        curve.score(steps)
        curve.publish(steps)
        shutil.rmtree(layout.intermediate(policy.folder), ignore_errors=True)
        if lost := sorted({*wanted} - {*steps}):
            logger.warning(
                "%s kept no weights at %s: the held-out curve leaves these steps out; rlassay rerun %s --seed %s "
                "trains it again with them",
                *(policy.folder, ", ".join(map(str, lost)), policy.arm, policy.seed),
            )


def follow_curve(study: Study, layout: Layout, policy: Policy, since: float) -> None:
    """Add points to a run's held-out curve while it trains, and remove their weights; it never returns.

    Whatever it leaves, `run_curve` does. Killed at any moment, it leaves no half-written file.

    Args:
        study: the study, with a held-out curve.
        layout: paths of its files.
        policy: the run.
        since: when its job began, unix seconds; records of earlier jobs are ignored.
    """
    while (attempt := _newest_attempt(layout, policy)) is None or attempt["started"] < since:
        time.sleep(POLL)
    progress = read_progress(layout, policy.folder)
    assert progress is not None  # it has an attempt
    curve = _Curve(study, layout, policy, progress.identity)
    curve.forget_after(attempt["step"])
    while True:
        weights = curve.waiting()
        if not weights:
            time.sleep(POLL)
            continue
        step = min(weights)
        curve.answer({step: weights[step]})
        curve.score([step])
        shutil.rmtree(weights[step])


def _newest_attempt(layout: Layout, policy: Policy) -> dict[str, Any] | None:
    """The newest attempt at a training, as `state/run.json` records it."""
    record = read_json(layout.run_record(policy.folder))
    return None if record is None else record["attempts"][-1]


def _mean(scores: list[ScoreRow], study: Study) -> float | None:
    """Mean of the primary metric over the completions that have a value; None without any."""
    wanted = (study.primary.metric, study.primary.mode)
    values = [each.value for each in scores if (each.metric, each.mode) == wanted and each.value is not None]
    return sum(values) / len(values) if values else None


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

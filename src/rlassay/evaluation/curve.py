"""The stage `held_out_curve`: the weights that a run kept in the middle of its training answer an evaluation set.

It starts when the run has ended, so that training never waits for it. Every step answers with the seeds of the final
evaluation, so that a curve is no noisier than it has to be, and its weights are removed once they have answered.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlassay import ranks
from rlassay.config.fingerprints import evaluation_id
from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.evaluation.generate import WorkFile, answer_share, answering, plan_batches, wait_for_all_answers
from rlassay.evaluation.score import log_failures, metrics_of, score_file, write_scores
from rlassay.files import read_json, write_json
from rlassay.layout import Layout, checkpoints
from rlassay.records import ScoreRow, read_rows, write_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What one run has to answer."""

    study: Study
    layout: Layout
    policy: Policy
    split: str
    key: str
    """Identifies the completions: the trained weights, the prompts and the decoding."""
    weights: dict[int, Path]
    """Step -> folder of the weights that have not answered yet."""


def run_curve(study: Study, layout: Layout, policy: Policy) -> None:
    """Write `<policy>/curve/<set>.scores.parquet`: every metric of every completion at every step of the curve.

    Finished batches survive a kill. Steps whose weights are gone, because an earlier evaluation asked otherwise or the
    run was trained before the study asked for a curve, are left out with a warning.

    Errors: ValueError for a study without `evaluation.every`, and for a run that is not trained yet.
    """
    split = study.curve_set
    if split is None:
        raise ValueError("evaluation.every is null, so that there is no held-out curve to make")
    manifest = read_json(layout.train_manifest(policy.folder))
    if manifest is None:
        raise ValueError(f"{policy.folder} is not trained yet: there is no {layout.train_manifest(policy.folder)}")
    # 1. The steps that have answered, and those whose weights still wait.
    key = _key(study, layout, policy, split, manifest)
    record: dict[str, Any] = read_json(layout.curve_record(policy.folder, split)) or {}
    answered: list[int] = record["steps"] if record.get("key") == key else []
    wanted = study.curve_points(manifest["steps"])
    kept = checkpoints(layout.intermediate(policy.folder))
    weights = {step: path for step, path in kept.items() if step in wanted and step not in answered}
    # 2. Their completions.
    work = _Work(study=study, layout=layout, policy=policy, split=split, key=key, weights=weights)
    if weights:
        _answer(work)
    # 3. The scores of all steps; the weights have served.
    if ranks.is_main():
        steps = sorted({*answered, *weights} & {*wanted})
        write_json(layout.curve_record(policy.folder, split), {"key": key, "steps": steps})
        _score(work, steps)
        shutil.rmtree(layout.intermediate(policy.folder), ignore_errors=True)
        if lost := sorted({*wanted} - {*steps}):
            logger.warning(
                "%s kept no weights at %s: the held-out curve leaves these steps out; rlassay rerun %s --seed %s "
                "trains it again with them",
                *(policy.folder, ", ".join(map(str, lost)), policy.arm, policy.seed),
            )


def _answer(work: _Work) -> None:
    """Write the completions of each step."""
    layout, folder = work.layout, work.policy.folder
    batches = plan_batches(list(read_rows(layout.split(work.split))), work.study.evaluation)
    with WorkFile(layout.curve_part(folder, work.split), work.key) as done:
        for step, path in work.weights.items():
            opened = answering(work.study, layout, work.policy, path)
            title = f"step {step} of {folder} {work.split}"
            answer_share(done, batches, opened, title, first=step * len(batches))
    wait_for_all_answers()
    if ranks.is_main():
        found = done.done | done.of_all()
        for step in work.weights:
            rows = (row for batch in batches for row in found[step * len(batches) + batch.number])
            write_rows(layout.curve_completions(folder, work.split, step), rows)
        for file in done.files():
            file.unlink()


def _score(work: _Work, steps: list[int]) -> None:
    rows = {row.prompt_id: row for row in read_rows(work.layout.split(work.split))}
    metrics = metrics_of(work.study)

    def scored() -> Iterator[tuple[int, ScoreRow]]:
        for step in steps:
            source = work.layout.curve_completions(work.policy.folder, work.split, step)
            for score in score_file(source, rows, work.study.evaluation, metrics):
                yield step, score

    found = list(scored())
    target = work.layout.curve(work.policy.folder, work.split)
    write_scores(target, [score for _, score in found], [step for step, _ in found])
    log_failures(metrics)


def _key(study: Study, layout: Layout, policy: Policy, split: str, manifest: dict[str, Any]) -> str:
    """Digest of the run's result, the rows and the decoding; code is left out, since weights cannot answer again."""
    rows = hashlib.sha256(layout.split(split).read_bytes()).hexdigest()
    parts = [policy.folder, policy.fingerprint, manifest["sha256"], evaluation_id(study, policy.recipe), rows]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

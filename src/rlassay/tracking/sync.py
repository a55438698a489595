"""Sync a study's files to its MLflow experiment: jobs, evaluations and report; repeating it changes nothing."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]
import yaml

from rlassay.config.policies import Policy, policies
from rlassay.config.study import Study
from rlassay.files import combined_digest, read_json
from rlassay.layout import PAGE, REPORT_NUMBERS, Layout
from rlassay.locks import file_lock
from rlassay.progress import Progress, read_curve_points, read_progress
from rlassay.tracking.answer import ALIAS, ReportNumbers, row_note
from rlassay.tracking.names import MetricsFile, Point, legal_name
from rlassay.tracking.runs import evaluation_run, parent_run, report_run, training_run
from rlassay.tracking.samples import RolloutTable
from rlassay.tracking.store import Status, Store

STATUS: dict[str, Status] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "collapsed": "FAILED",
    "killed": "KILLED",
    "failed": "FAILED",
}
REPORT_KINDS = {"model": "untrained", "reference": "reference", "sft": "sft", "rl": "arm"}
ROWS = {
    "model": "The model before training.",
    "reference": "A reference.",
    "sft": "The policy before RL.",
    "rl": "The baseline.",
}
"""Stage of a policy -> description of its row, which has no verdict."""
SECONDS_BETWEEN_SAMPLES = 60.0
"""Shortest time between two uploads of completions."""
NOTE = "mlflow.note.content"
"""Tag with the description that MLflow shows of a run or an experiment."""


def sync_study(
    study: Study,
    layout: Layout,
    uri: str,
    done: Callable[[str], object] = lambda _: None,
    register_champion: bool = False,
) -> int:
    """Write all values of a study that the store lacks; return the number of values written.

    Args:
        study: the study.
        layout: paths of its files.
        uri: tracking URI.
        done: called with the folder of each policy, and with `report`, once synced.
        register_champion: whether to register the best arm of the report as a model, see `choose_champion`.
    """
    store = Store(uri, study.id, layout.tracking)
    written = sync_policies(store, study, layout, done) + sync_report(store, study, layout, register_champion)
    done("report")
    return written


def sync_policies(store: Store, study: Study, layout: Layout, done: Callable[[str], object]) -> int:
    """Send training and evaluation of every policy to MLflow, not the report; return the number of values written."""
    written = 0
    for folder, policy in policies(study).items():
        written += Feed(store, study, layout, policy).finish()
        done(folder)
    return written


def sync_report(store: Store, study: Study, layout: Layout, register_champion: bool = False) -> int:
    """Write the report's numbers to the parent runs, and the report itself; return the number of values written."""
    if not (layout.report / REPORT_NUMBERS).exists():
        return 0
    report = ReportNumbers(layout)
    run = store.get_or_create(report_run(), report.written)
    store.add_folder(run, layout.report)
    page = store.artifact(run, f"{layout.report.name}/{PAGE}")
    answer = report.note(layout.report / PAGE, page)
    if register_champion:
        answer += add_champion(store, study, layout, report)
    store.add_tags(run, {NOTE: answer})
    store.tag_experiment(report.views() | {NOTE: answer})
    store.update_status(run, "FINISHED", report.written)
    written = 0
    any_seed = {policy.stem: policy for policy in policies(study).values()}
    for policy in any_seed.values():
        name = policy.arm or policy.reference or policy.fingerprint
        parent = store.get_or_create(parent_run(study, policy), report.written)
        written += store.add_values(parent, report.numbers(REPORT_KINDS[policy.stage], name), report.written)
        store.add_tags(parent, {NOTE: row_note(report.sentence(name) or ROWS[policy.stage], page)})
    return written


def add_champion(store: Store, study: Study, layout: Layout, report: ReportNumbers) -> str:
    """Register the champion's weights and return a paragraph about it; empty if the report evaluated others."""
    champion = report.champion()
    if champion is None:
        return ""
    folder = layout.run(champion.arm, champion.seed)
    manifest = read_json(layout.train_manifest(folder)) or {}
    run = store.find(folder, "rl")
    if run is None or not manifest or report.weights(folder) != combined_digest(manifest["sha256"]):
        return ""
    weights = layout.root / folder / manifest["weights"]
    version = store.register(run, weights, report.weights(folder), ALIAS, champion.why)
    return f"\n\nChampion: arm {study.arms[champion.arm].label!r}, seed {champion.seed}, [as a model]({version})."


class Feed:
    """Keeps one policy's MLflow runs up to date while its files grow."""

    def __init__(self, store: Store, study: Study, layout: Layout, policy: Policy) -> None:
        self.store = store
        self.study = study
        self.layout = layout
        self.policy = policy
        self.metrics = MetricsFile(layout.metrics(policy.folder))
        self.rollouts = RolloutTable(layout, policy.folder)
        self._lock = file_lock(layout.tracking / f"{policy.folder.replace('/', '-')}.lock")
        self._identity = ""
        self.run_id = ""
        """The run of the training; empty until it has started."""
        self._sampled = 0.0

    def update(self) -> int:
        """Write values logged since the last update, and the status; return the number of values written."""
        with self._lock:
            progress = self._progress()
            if progress is None:
                return 0
            try:
                return self._training(progress)
            except BaseException:
                self._identity = ""  # start over: the store may lack the last batch, or the run
                raise

    def finish(self) -> int:
        """Last update, with the newest completions and the evaluation; return the number of values written."""
        self._sampled = 0.0
        written = self.update()
        with self._lock:
            return written + self._evaluation()

    def _training(self, progress: Progress) -> int:
        if progress.identity != self._identity:
            self._start_run(progress)
        points = [*self.metrics.new_points(), *self._held_out(progress.identity)]
        now = self._progress()
        if now is None or now.identity != progress.identity:  # restarted meanwhile: these may be another run's lines
            self._identity = ""
            return 0
        run = self.store.get(self.run_id)
        written = self.store.add_points(run, points)
        if time.monotonic() - self._sampled > SECONDS_BETWEEN_SAMPLES:
            self._sampled = time.monotonic()
            table = self.rollouts.make()
            if table is not None:
                self.store.add_table(run, "rollouts.json", table)
        self.store.update_status(run, STATUS[progress.condition], progress.ended)
        return written

    def _held_out(self, identity: str) -> list[Point]:
        """The points of the run's held-out curve; the store knows which of them it has."""
        name, primary = self.study.curve_set, self.study.primary
        if name is None or self.policy.stage != "rl":
            return []
        key = legal_name(f"held_out/{name}/{primary.metric}/{primary.mode}")
        points = read_curve_points(self.layout, self.policy.folder, name, identity)
        return [Point(key=key, value=each.score, step=each.step, timestamp=int(each.time * 1000)) for each in points]

    def _start_run(self, progress: Progress) -> None:
        run = self.store.get_or_create(training_run(self.study, self.policy, progress.identity), progress.started)
        self.store.add_text(run, "config.yaml", _config(self.study, self.policy))
        split = "sft" if self.policy.stage == "sft" else "train"
        self.store.add_datasets(run, [self.layout.split(split)], "training")
        self.metrics.rewind()
        self._identity, self.run_id = progress.identity, run.info.run_id

    def _evaluation(self) -> int:
        folder = self.policy.folder
        sets = [name for name in self.study.evaluation.sets if self._is_scored(name)]
        if not sets:
            return 0
        progress = self._progress()
        identity = folder if progress is None else progress.identity
        ended = max(self.layout.scores(folder, name).stat().st_mtime for name in sets)
        started = min(self.layout.completions(folder, name).stat().st_mtime for name in sets)
        run = self.store.get_or_create(evaluation_run(self.study, self.policy, identity), started)
        self.store.add_datasets(run, [self.layout.split(name) for name in sets], "evaluation")
        written = self.store.add_values(run, evaluation_means(self.layout, folder, sets), ended)
        self.store.update_status(run, "FINISHED", ended)
        return written

    def _is_scored(self, name: str) -> bool:
        """Whether a set has scores of the current weights."""
        scores = self.layout.scores(self.policy.folder, name)
        if not self.policy.is_trained or not scores.exists():
            return scores.exists()
        trained = self.layout.train_manifest(self.policy.folder, self.policy.stage)
        return trained.exists() and trained.stat().st_mtime <= scores.stat().st_mtime

    def _progress(self) -> Progress | None:
        return None if not self.policy.is_trained else read_progress(self.layout, self.policy.folder)


def evaluation_means(layout: Layout, folder: str, sets: Iterable[str]) -> dict[str, float]:
    """`<set>/<metric>/<mode>` -> mean over prompts of each prompt's mean over its completions; None is left out."""
    facts: dict[str, float] = {}
    for name in sets:
        scores = _read_parquet(layout.scores(folder, name), columns=["prompt_id", "mode", "metric", "value"])
        by_prompt = scores.group_by(["metric", "mode", "prompt_id"]).aggregate([("value", "mean")])
        means = by_prompt.group_by(["metric", "mode"]).aggregate([("value_mean", "mean")])
        for row in means.to_pylist():
            if row["value_mean_mean"] is not None:
                facts[f"{name}/{row['metric']}/{row['mode']}"] = row["value_mean_mean"]
    return facts


def _read_parquet(path: Path, columns: list[str] | None = None) -> Any:
    untyped: Any = pq
    return untyped.read_table(path, columns=columns)


def _config(study: Study, policy: Policy) -> str:
    """Resolved sections of one policy, in the form of a study file."""
    content = study.model_dump(mode="json", include={"name", "scale", "seeds", "gpus", "data", "evaluation", "primary"})
    content |= {"policy": policy.folder, **policy.recipe.model_dump(mode="json")}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

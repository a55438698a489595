"""From the files of a study to its MLflow experiment; doing it again changes nothing."""

import time
from collections.abc import Callable

import yaml
from filelock import FileLock

from rlassay.config.policies import Policy, policies
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.progress import Progress, read_progress
from rlassay.tracking.about import about_evaluation, about_parent, about_report, about_training
from rlassay.tracking.facts import ReportFacts, evaluation_facts, rollout_sample
from rlassay.tracking.metrics_file import MetricsFile
from rlassay.tracking.store import Status, Store

STATUS: dict[str, Status] = {"running": "RUNNING", "finished": "FINISHED", "killed": "KILLED", "failed": "FAILED"}
REPORT_KINDS = {"model": "untrained", "sft": "sft", "rl": "arm"}
SECONDS_BETWEEN_SAMPLES = 60.0


class Feed:
    """Keeps the MLflow runs of one policy up to date while its files grow."""

    def __init__(self, store: Store, study: Study, layout: Layout, policy: Policy) -> None:
        self.store = store
        self.study = study
        self.layout = layout
        self.policy = policy
        self.metrics = MetricsFile(layout.metrics(policy.folder))
        self._lock = FileLock(layout.tracking / f"{policy.folder.replace('/', '-')}.lock")
        self._identity = ""
        self._run_id = ""
        self._sampled = 0.0

    def update(self) -> int:
        """Write what was logged since the last time, and the status; return the number of values written."""
        with self._lock:
            progress = self._progress()
            if progress is None:
                return 0
            try:
                return self._training(progress)
            except BaseException:
                self._identity = ""  # begin anew: the store may or may not have the last batch, or lack the run
                raise

    def finish(self) -> int:
        """The last update, with the newest completions and the evaluation; return the number of values written."""
        self._sampled = 0.0
        written = self.update()
        with self._lock:
            return written + self._evaluation()

    def _training(self, progress: Progress) -> int:
        if progress.identity != self._identity:
            self._enter(progress)
        points = self.metrics.new_points()
        now = self._progress()
        if now is None or now.identity != progress.identity:  # begun again meanwhile: these may be another run's lines
            self._identity = ""
            return 0
        run = self.store.get(self._run_id)
        written = self.store.add_points(run, points)
        if time.monotonic() - self._sampled > SECONDS_BETWEEN_SAMPLES:
            self._sampled = time.monotonic()
            sample = rollout_sample(self.layout.rollouts(self.policy.folder))
            if sample is not None:
                self.store.add_table(run, "rollouts.json", sample)
        self.store.settle(run, STATUS[progress.condition], progress.ended)
        return written

    def _enter(self, progress: Progress) -> None:
        run = self.store.enter(about_training(self.study, self.policy, progress.identity), progress.started)
        self.store.add_text(run, "config.yaml", _config(self.study, self.policy))
        split = "sft" if self.policy.stage == "sft" else "train"
        self.store.add_datasets(run, [self.layout.split(split)], "training")
        self.metrics.rewind()
        self._identity, self._run_id = progress.identity, run.info.run_id

    def _evaluation(self) -> int:
        folder = self.policy.folder
        sets = [name for name in self.study.evaluation.sets if self._is_scored(name)]
        if not sets:
            return 0
        progress = self._progress()
        identity = folder if progress is None else progress.identity
        ended = max(self.layout.scores(folder, name).stat().st_mtime for name in sets)
        started = min(self.layout.completions(folder, name).stat().st_mtime for name in sets)
        run = self.store.enter(about_evaluation(self.study, self.policy, identity), started)
        self.store.add_datasets(run, [self.layout.split(name) for name in sets], "evaluation")
        written = self.store.add_facts(run, evaluation_facts(self.layout, folder, sets), ended)
        self.store.settle(run, "FINISHED", ended)
        return written

    def _is_scored(self, name: str) -> bool:
        """Whether a set has scores, and of the weights that lie there now."""
        scores = self.layout.scores(self.policy.folder, name)
        if self.policy.stage == "model" or not scores.exists():
            return scores.exists()
        trained = self.layout.train_sentinel(self.policy.folder)
        return trained.exists() and trained.stat().st_mtime <= scores.stat().st_mtime

    def _progress(self) -> Progress | None:
        return None if self.policy.stage == "model" else read_progress(self.layout, self.policy.folder)


def sync_report(store: Store, study: Study, layout: Layout) -> int:
    """Write the report's numbers to the parent runs, and the report itself; return the number of values written."""
    if not (layout.report / "report.json").exists():
        return 0
    report = ReportFacts(layout)
    run = store.enter(about_report(), report.written)
    store.add_folder(run, layout.report)
    store.settle(run, "FINISHED", report.written)
    written = 0
    for about, policy in {about_parent(study, policy).policy: policy for policy in policies(study).values()}.items():
        name = about.split("/")[1]
        parent = store.enter(about_parent(study, policy), report.written)
        written += store.add_facts(parent, report.numbers(REPORT_KINDS[policy.stage], name), report.written)
        sentence = report.sentence(name)
        if sentence is not None:
            store.add_tags(parent, {"mlflow.note.content": sentence})
    return written


def sync_policies(store: Store, study: Study, layout: Layout, done: Callable[[str], object]) -> int:
    """Bring training and evaluation of every policy up to date; as `sync_study`, without the report."""
    written = 0
    for folder, policy in policies(study).items():
        written += Feed(store, study, layout, policy).finish()
        done(folder)
    return written


def sync_study(study: Study, layout: Layout, uri: str, done: Callable[[str], object] = lambda what: None) -> int:
    """Write everything of a study that the store lacks; return the number of values written.

    Args:
        study: the study.
        layout: where its files lie.
        uri: tracking URI.
        done: called with the folder of each policy, and with `report`, when it is up to date.
    """
    store = Store(uri, study.id, layout.tracking)
    written = sync_policies(store, study, layout, done) + sync_report(store, study, layout)
    done("report")
    return written


def _config(study: Study, policy: Policy) -> str:
    """The resolved sections behind one policy, in the form of a study file."""
    content = study.model_dump(mode="json", include={"name", "scale", "seeds", "gpus", "data", "evaluation", "primary"})
    content |= {"policy": policy.folder, **policy.recipe.model_dump(mode="json")}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

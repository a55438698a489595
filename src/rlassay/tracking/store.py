"""The MLflow store of a study: find or create runs, and write missing values.

No value is written twice. Only this module and its callers `sync.py` and `feeder.py` import MLflow. An sqlite store is
created once, as a whole, even if many jobs start at the same time (`prepare_database`).
"""

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from rlassay.locks import file_lock
from rlassay.tracking.links import Links, arms_link, artifact_link, keep_links, model_link, run_link
from rlassay.tracking.names import CURRENT, DIGEST, IDENTITY, POLICY, STAGE, STUDY, Point
from rlassay.tracking.runs import RunDescription
from rlassay.tracking.samples import Table

ItemT = TypeVar("ItemT")
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
TRACKER_ERRORS = (MlflowException, SQLAlchemyError, OSError)
"""Errors of a store that is down, slow, full or of another version."""
PARENT = "mlflow.parentRunId"
TRAINING = ("sft", "rl")
"""Stages of runs that train; the duration of their parent is that of the training."""
METRICS_PER_BATCH = 1000  # MLflow's limit
PARAMS_PER_BATCH = 100


def limit_waiting(seconds: int, retries: int) -> None:
    """Limit the time of one request to a tracking server; MLflow's own limits allow 247 s.

    Variables already set in the environment take precedence.
    """
    for name, value in {"TIMEOUT": seconds, "MAX_RETRIES": retries, "BACKOFF_FACTOR": 1}.items():
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", str(value))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class Store:
    """One study's experiment in an MLflow store."""

    def __init__(self, uri: str, study: str, locks: Path) -> None:
        """Open the store, and create database and experiment if missing.

        Args:
            uri: tracking URI.
            study: the study's id, the experiment's name.
            locks: folder of file locks that the study's processes share.
        """
        database = prepare_database(uri)
        self.client = MlflowClient(uri)
        self.uri = uri
        self.study = study
        self.folder = locks
        locks.mkdir(parents=True, exist_ok=True)
        self._lock = file_lock(locks / "runs.lock")
        self._parents: dict[tuple[str, str], str] = {}
        with self._lock:
            self.experiment = self._experiment(database)

    def _experiment(self, database: Path | None) -> str:
        found = self.client.get_experiment_by_name(self.study)
        if found is None:
            # Plain `mlflow ui` keeps artifacts in mlartifacts/ beside its database; a server has its own location.
            location = None if database is None else str(database.parent / "mlartifacts" / self.study)
            return self.client.create_experiment(self.study, artifact_location=location)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def get_or_create(self, description: RunDescription, started: float) -> Run:
        """The run of a description, created if missing, with all its params and tags; `started`: unix seconds.

        Older runs of the same policy and stage show results that were replaced; they stay, marked as not current.
        """
        parent = None if description.parent is None else self._parent(description.parent, started)
        tags = {
            STUDY: self.study,
            POLICY: description.policy,
            STAGE: description.stage,
            IDENTITY: description.identity,
            CURRENT: "true",
        }
        tags |= description.tags | {"mlflow.source.name": "rlassay"}
        if parent is not None:
            tags[PARENT] = parent
        with self._lock:
            found = self._current({POLICY: description.policy, STAGE: description.stage})
            same = [run for run in found if run.data.tags[IDENTITY] == description.identity]
            run = same[0] if same else self._create(description.name, tags, started)
            for other in found:
                if other.info.run_id != run.info.run_id:
                    self._retire(other)
            self._describe(run, description.params, tags)
        self._keep_link(description, run.info.run_id)
        return self.get(run.info.run_id)

    def _keep_link(self, description: RunDescription, run_id: str) -> None:
        """Keep the address of a training run or of a parent run for the report."""
        if description.stage in ("evaluation", "report"):
            return
        address = {description.policy: run_link(self.uri, self.experiment, run_id)}
        arms = arms_link(self.uri, self.experiment)
        kept = {"runs": address} if description.parent is not None else {"parents": address}
        keep_links(self.folder, Links(uri=self.uri, arms=arms, **kept))

    def artifact(self, run: Run, path: str) -> str:
        """The address at which `mlflow ui` shows an artifact of a run."""
        return artifact_link(self.uri, self.experiment, run.info.run_id, path)

    def _parent(self, description: RunDescription, started: float) -> str:
        """The id of a parent run, looked up once."""
        key = (description.policy, description.identity)
        if key not in self._parents:
            self._parents[key] = self.get_or_create(description, started).info.run_id
        return self._parents[key]

    def get(self, run_id: str) -> Run:
        """The current state of a run."""
        return self.client.get_run(run_id)

    def _create(self, name: str, tags: dict[str, str], started: float) -> Run:
        return self.client.create_run(self.experiment, int(started * 1000), tags, name)

    def _retire(self, run: Run) -> None:
        self.client.set_tag(run.info.run_id, CURRENT, "false")
        if run.info.status == "RUNNING":
            self.client.set_terminated(run.info.run_id, "KILLED")

    def _describe(self, run: Run, params: dict[str, str], tags: dict[str, str]) -> None:
        """Add missing params and tags; an existing param keeps its first value, as MLflow demands."""
        new_params = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        new_tags = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
        for batch in _batches(new_params, PARAMS_PER_BATCH):
            self.client.log_batch(run.info.run_id, params=batch)
        if new_tags:
            self.client.log_batch(run.info.run_id, tags=new_tags)

    def add_points(self, run: Run, points: Iterable[Point]) -> int:
        """Write points beyond the last step that the run has of their metric; return how many."""
        steps = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        new = [
            Metric(point.key, point.value, point.timestamp, point.step)
            for point in points
            if point.step > steps.get(point.key, -1)
        ]
        for batch in _batches(new, METRICS_PER_BATCH):
            self.client.log_batch(run.info.run_id, metrics=batch)
        return len(new)

    def add_values(self, run: Run, values: Mapping[str, float], when: float) -> int:
        """Write values without a step; a changed one is written at the next step. `when`: unix seconds."""
        newest = {metric.key: (metric.value, metric.step) for metric in run.data.to_proto().metrics}
        new = [
            Metric(key, value, int(when * 1000), newest[key][1] + 1 if key in newest else 0)
            for key, value in values.items()
            if key not in newest or newest[key][0] != value
        ]
        for batch in _batches(new, METRICS_PER_BATCH):
            self.client.log_batch(run.info.run_id, metrics=batch)
        return len(new)

    def add_tags(self, run: Run, tags: dict[str, str]) -> None:
        """Set the tags that differ."""
        self._describe(run, {}, tags)

    def tag_experiment(self, tags: dict[str, str]) -> None:
        """Set the tags of the experiment that differ."""
        known = self.client.get_experiment(self.experiment).tags
        for key, value in tags.items():
            if known.get(key) != value:
                self.client.set_experiment_tag(self.experiment, key, value)

    def add_text(self, run: Run, name: str, text: str) -> None:
        """Upload a text as the artifact `name`, unless the run already has it."""
        digest = _sha256(text.encode())
        if run.data.tags.get(DIGEST + name) != digest:
            self.client.log_text(run.info.run_id, text, name)
            self.client.set_tag(run.info.run_id, DIGEST + name, digest)

    def add_table(self, run: Run, name: str, table: Table) -> None:
        """Upload a table that `mlflow ui` shows and compares between runs, with its images.

        `MlflowClient.log_table` would append the rows to those of the last upload.
        """
        client = cast(Any, self.client)  # its types leave paths open
        known = set[str]()
        for folder in {path.rpartition("/")[0] for path in table.images}:
            known |= {file.path for file in client.list_artifacts(run.info.run_id, folder)}
        for path, file in table.images.items():
            if path not in known:
                client.log_artifact(run.info.run_id, str(file), path.rpartition("/")[0])
        self.add_text(run, name, json.dumps(table.content))
        self.add_tags(run, {"mlflow.loggedArtifacts": json.dumps([{"path": name, "type": "table"}])})

    def add_folder(self, run: Run, folder: Path) -> None:
        """Upload a folder under its own name, unless its content is unchanged."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        content = b"".join(f"{path.relative_to(folder)} {_sha256(path.read_bytes())}\n".encode() for path in files)
        digest = _sha256(content)
        if run.data.tags.get(DIGEST + folder.name) != digest:
            self.client.log_artifacts(run.info.run_id, str(folder), folder.name)
            self.client.set_tag(run.info.run_id, DIGEST + folder.name, digest)

    def find(self, policy: str, stage: str) -> Run | None:
        """The current run of a policy's stage; None if the store has none."""
        return next(iter(self._current({POLICY: policy, STAGE: stage})), None)

    def register(self, run: Run, weights: Path, digest: str, alias: str, why: str) -> str:
        """Register weights as a version of the study's model, and return its address.

        The version gets the alias. Weights that have a version already get no second one.

        Args:
            run: the run that trained them, which receives the files as its artifact `model`.
            weights: their folder.
            digest: identifies them.
            alias: taken from any other version.
            why: description of a new version.
        """
        client = cast(Any, self.client)  # its types leave paths open
        name = re.sub("[/:]", "_", self.study)  # names of models hold neither
        if run.data.tags.get(f"{DIGEST}model") != digest:
            client.log_artifacts(run.info.run_id, str(weights), "model")
            client.set_tag(run.info.run_id, f"{DIGEST}model", digest)
        with self._lock:
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            known = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST}model` = '{digest}'")
            version = known[0] if known else self._new_version(run, name, digest, why)
            aliases = client.get_registered_model(name).aliases
            if str(aliases.get(alias)) != str(version.version):
                client.set_registered_model_alias(name, alias, version.version)
        return model_link(self.uri, name, str(version.version))

    def _new_version(self, run: Run, name: str, digest: str, why: str) -> Any:
        source, tags = f"{run.info.artifact_uri}/model", {f"{DIGEST}model": digest, STUDY: self.study}
        return self.client.create_model_version(name, source, run.info.run_id, tags, description=why)

    def add_datasets(self, run: Run, files: Sequence[Path], context: str) -> None:
        """Log existing JSONL files as datasets, each with its digest and number of rows."""
        known = {used.dataset.digest for used in run.inputs.dataset_inputs} if run.inputs else set[str]()
        datasets = [dataset for dataset in map(_dataset, filter(Path.exists, files)) if dataset.digest not in known]
        if datasets:
            tag = InputTag("mlflow.data.context", context)
            with self._lock:  # MLflow fails when two processes log the same dataset at once
                self.client.log_inputs(run.info.run_id, [DatasetInput(dataset, [tag]) for dataset in datasets])

    def update_status(self, run: Run, status: Status, ended: float | None) -> None:
        """Update status and end of a run and of its parent; `ended`: unix seconds, None while it runs."""
        end = None if ended is None else int(ended * 1000)
        if run.info.status == status and end in (None, run.info.end_time):
            return
        with self._lock:
            self._set_status(run, status, end)
            parent = run.data.tags.get(PARENT)
            if parent is not None:
                self._update_parent_status(self.client.get_run(parent))

    def _update_parent_status(self, parent: Run) -> None:
        """Status over all children; the end is that of the last training, or of the evaluation where none trains."""
        children = self._current({PARENT: parent.info.run_id})
        found = {child.info.status for child in children}
        status = next(status for status in ("RUNNING", "FAILED", "KILLED", "FINISHED") if status in found)
        trained = [child for child in children if child.data.tags[STAGE] in TRAINING]
        end = None if status == "RUNNING" else max(child.info.end_time or 0 for child in trained or children)
        self._set_status(parent, status, end)

    def _set_status(self, run: Run, status: str, end: int | None) -> None:
        if end is None:
            self.client.update_run(run.info.run_id, status)
        else:
            self.client.set_terminated(run.info.run_id, status, end)

    def _current(self, tags: dict[str, str]) -> list[Run]:
        """Current runs with all of `tags`, newest first."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in (tags | {CURRENT: "true"}).items())
        return list(self.client.search_runs([self.experiment], wanted, order_by=["attributes.start_time DESC"]))


def prepare_database(uri: str) -> Path | None:
    """Create the sqlite database of a tracking URI if missing, and return its path; None for other URIs.

    Processes that create the tables of one database at the same time damage it permanently, and so does a kill
    meanwhile. Therefore it is created under a temporary name and a file lock, and renamed when complete. In WAL mode
    readers and writers do not block each other.
    """
    if not uri.startswith("sqlite"):
        return None
    path = Path(make_url(uri).database or "").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists() or path.stat().st_size == 0:
            unfinished = path.with_name(f"{path.name}.unfinished")
            unfinished.unlink(missing_ok=True)
            SqlAlchemyStore(f"sqlite:///{unfinished}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
            _use_wal(unfinished)
            unfinished.replace(path)
        else:
            with suppress(sqlite3.OperationalError):  # in use by others: keep its mode
                _use_wal(path)
    return path


def _use_wal(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=1.0)) as database:
        database.execute("PRAGMA journal_mode=WAL")


def _batches(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _dataset(file: Path) -> Dataset:
    content = file.read_bytes()
    return Dataset(
        name=file.stem,
        digest=_sha256(content)[:36],
        source_type="local",
        source=json.dumps({"uri": str(file.absolute())}),
        profile=json.dumps({"num_rows": content.count(b"\n")}),
    )

"""The store: MLflow's limits, only new values, and an sqlite database that is complete and in WAL mode."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

from rlassay.tracking.names import Point
from rlassay.tracking.runs import RunDescription
from rlassay.tracking.store import Store, limit_waiting, prepare_database
from tests.tracking.reading import Reader

DESCRIPTION = RunDescription(name="one", policy="runs/one", stage="rl", identity="first", params={}, tags={})


@pytest.fixture
def store(reader: Reader, tmp_path: Path) -> Store:
    return Store(reader.uri, "small", tmp_path / "locks")


def test_more_than_a_batch_of_points_and_params_arrives(store: Store, reader: Reader) -> None:
    params = {f"p{number}": str(number) for number in range(130)}  # MLflow accepts 100 at once
    description = RunDescription(name="one", policy="runs/one", stage="rl", identity="first", params=params, tags={})
    run = store.get_or_create(description, started=1.0)
    points = [Point(key="a", value=float(step), step=step, timestamp=1000) for step in range(2300)]  # 1000 at once
    assert store.add_points(run, points) == 2300
    assert [step for step, _ in reader.points(run, "a")] == list(range(2300))
    assert reader.run("one").data.params == params


def test_step_0_is_a_step(store: Store, reader: Reader) -> None:
    run = store.get_or_create(DESCRIPTION, started=1.0)
    point = Point(key="a", value=1.0, step=0, timestamp=1000)
    assert store.add_points(run, [point]) == 1
    assert store.add_points(store.get(run.info.run_id), [point]) == 0


def test_the_same_identity_is_one_run_and_another_identity_is_another(store: Store, reader: Reader) -> None:
    first = store.get_or_create(DESCRIPTION, started=1.0)
    assert store.get_or_create(DESCRIPTION, started=2.0).info.run_id == first.info.run_id
    second = RunDescription(name="one", policy="runs/one", stage="rl", identity="second", params={}, tags={})
    assert store.get_or_create(second, started=3.0).info.run_id != first.info.run_id
    assert [run.data.tags["rlassay.current"] for run in reader.runs()["one"]] == ["false", "true"]
    again = store.get_or_create(DESCRIPTION, started=4.0)  # not the old one: replaced results stay replaced
    assert again.info.run_id != first.info.run_id


def test_shared_data_are_written_under_the_lock(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow fails when two processes log the same dataset, or the params of the same parent run, at once."""
    seen: list[tuple[str, bool]] = []

    def watch(name: str) -> None:
        write = getattr(store.client, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            seen.append((name, _is_locked(tmp_path / "locks/runs.lock")))
            return write(*arguments, **options)

        monkeypatch.setattr(store.client, name, watched)

    for name in ("create_run", "log_batch", "log_inputs", "set_terminated"):
        watch(name)
    (tmp_path / "train.jsonl").write_text("{}\n")
    child = RunDescription(
        name="c", policy="c", stage="rl", identity="x", params={"a": "1"}, tags={}, parent=DESCRIPTION
    )
    run = store.get_or_create(child, started=1.0)
    store.add_datasets(run, [tmp_path / "train.jsonl"], "training")
    store.update_status(run, "FINISHED", 2.0)
    assert {name for name, _ in seen} == {"create_run", "log_batch", "log_inputs", "set_terminated"}
    assert all(held for _, held in seen), seen


def _is_locked(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def test_a_deleted_experiment_is_restored(store: Store, reader: Reader, tmp_path: Path) -> None:
    run = store.get_or_create(DESCRIPTION, started=1.0)
    reader.client.delete_experiment(store.experiment)
    again = Store(reader.uri, "small", tmp_path / "locks")
    assert again.experiment == store.experiment
    assert again.get_or_create(DESCRIPTION, started=1.0).info.run_id == run.info.run_id


def test_a_folder_is_uploaded_again_only_when_it_changed(store: Store, reader: Reader, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "page.html").write_text("one")
    run = store.get_or_create(DESCRIPTION, started=1.0)
    store.add_folder(run, folder)
    uploaded = Path(str(run.info.artifact_uri)) / "report/page.html"
    uploaded.write_text("marked")
    store.add_folder(store.get(run.info.run_id), folder)
    assert uploaded.read_text() == "marked"
    (folder / "page.html").write_text("two")
    store.add_folder(store.get(run.info.run_id), folder)
    assert uploaded.read_text() == "two"


def test_a_missing_file_is_no_dataset(store: Store, reader: Reader, tmp_path: Path) -> None:
    run = store.get_or_create(DESCRIPTION, started=1.0)
    store.add_datasets(run, [tmp_path / "gone.jsonl"], "training")
    assert reader.run("one").inputs.dataset_inputs == []


def test_limits_in_the_environment_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "77"
    os.environ.pop("MLFLOW_HTTP_REQUEST_MAX_RETRIES", None)
    limit_waiting(seconds=5, retries=0)
    assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == (77, 0)


def mode(path: Path) -> str:
    """The journal mode of a database."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA journal_mode").fetchone()[0]


def test_a_server_needs_no_database() -> None:
    assert prepare_database("http://127.0.0.1:5000") is None


def test_a_database_is_created_as_a_whole_despite_leftovers_of_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "mlflow.db"
    path.parent.mkdir()
    path.touch()
    (path.parent / "mlflow.db.unfinished").write_bytes(b"SQLite format 3\0 and no more")
    assert prepare_database(f"sqlite:///{path}") == path
    assert mode(path) == "wal"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    assert sorted(other.name for other in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_an_existing_database_is_kept_and_switched_to_wal_mode(empty_database: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("INSERT INTO experiments (name, lifecycle_stage) VALUES ('theirs', 'active')")
        database.commit()
    prepare_database(f"sqlite:///{path}")
    assert mode(path) == "wal"
    with closing(sqlite3.connect(path)) as database:
        assert ("theirs",) in database.execute("SELECT name FROM experiments").fetchall()


def test_a_locked_database_keeps_its_mode(empty_database: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("BEGIN EXCLUSIVE")
        assert prepare_database(f"sqlite:///{path}") == path
    assert mode(path) == "delete"

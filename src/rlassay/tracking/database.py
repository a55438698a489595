"""The sqlite database behind `mlflow ui`: created once, whole, also when many jobs start at the same time."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from filelock import FileLock
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import make_url


def prepare_database(uri: str) -> Path | None:
    """Make the sqlite database of a tracking URI ready, and return its path; None when the URI is not sqlite.

    Several processes that create the tables of one database at once break it for good, and so does a kill meanwhile:
    it is created beside its place, under a file lock, and moved there when it is whole. In WAL mode readers and
    writers do not wait for each other.
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
            with suppress(sqlite3.OperationalError):  # in use by others: they go on in the mode that it has
                _use_wal(path)
    return path


def _use_wal(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=1.0)) as database:
        database.execute("PRAGMA journal_mode=WAL")

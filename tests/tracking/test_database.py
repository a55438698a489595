"""The sqlite store: whole or not there, and in WAL mode."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from rlassay.tracking.database import prepare_database


def mode(path: Path) -> str:
    """The journal mode of a database."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA journal_mode").fetchone()[0]


def test_a_server_needs_no_database() -> None:
    assert prepare_database("http://127.0.0.1:5000") is None


def test_a_database_is_created_whole_whatever_a_kill_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "mlflow.db"
    path.parent.mkdir()
    path.touch()
    (path.parent / "mlflow.db.unfinished").write_bytes(b"SQLite format 3\0 and no more")
    assert prepare_database(f"sqlite:///{path}") == path
    assert mode(path) == "wal"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    assert sorted(other.name for other in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_database_that_others_made_is_kept_and_put_into_wal_mode(empty_database: Path, tmp_path: Path) -> None:
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


def test_a_database_that_is_locked_is_used_in_the_mode_it_has(empty_database: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("BEGIN EXCLUSIVE")
        assert prepare_database(f"sqlite:///{path}") == path
    assert mode(path) == "delete"

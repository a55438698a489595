"""Stores for tests, copied from one that is created once."""

import shutil
from pathlib import Path

import pytest

from tests.tracking.reading import Reader


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without experiments."""
    from rlassay.tracking.store import prepare_database

    path = prepare_database(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    assert path is not None
    return path


@pytest.fixture
def reader(empty_database: Path, tmp_path: Path) -> Reader:
    """Reader of a fresh store for one test."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Reader(tmp_path / "mlflow.db")

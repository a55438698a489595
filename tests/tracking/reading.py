"""Read an MLflow store with MLflow's own client and, for exact comparisons, from its tables."""

import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run


class Reader:
    """One sqlite store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = f"sqlite:///{path}"
        self.client = MlflowClient(self.uri)

    def runs(self, experiment: str = "small") -> dict[str, list[Run]]:
        """Name -> runs of that name, oldest first."""
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None
        named: dict[str, list[Run]] = {}
        for run in self.client.search_runs([found.experiment_id], order_by=["attributes.start_time"]):
            named.setdefault(str(run.info.run_name), []).append(run)
        return named

    def run(self, name: str) -> Run:
        """The only run of that name."""
        (run,) = self.runs()[name]
        return run

    def points(self, run: Run, key: str) -> list[tuple[int, float]]:
        """(step, value) of one metric, as stored, duplicates included."""
        with closing(sqlite3.connect(self.path)) as database:
            query = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp"
            return database.execute(query, (run.info.run_id, key)).fetchall()

    def duplicates(self) -> list[tuple[str, str, int]]:
        """(run, key, step) stored more than once."""
        with closing(sqlite3.connect(self.path)) as database:
            query = "SELECT run_uuid, key, step FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
            return database.execute(query).fetchall()

    def dump(self) -> list[str]:
        """Everything in the database, as SQL."""
        with closing(sqlite3.connect(self.path)) as database:
            return list(database.iterdump())

    def artifact(self, run: Run, name: str) -> str:
        """Text of an artifact."""
        return (Path(str(run.info.artifact_uri)) / name).read_text()

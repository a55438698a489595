"""Addresses in MLflow's user interface, kept on disk for readers without MLflow."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlassay.files import read_json, write_json
from rlassay.locks import file_lock

ARMS_VIEW, RUNS_VIEW = "rlassay-arms", "rlassay-runs"
"""Keys of two shared views: arms side by side, and training runs grouped by arm."""
CHARTS = "&compareRunsMode=CHART"
"""Opens a view with its charts in place of its table."""
LOCAL = "http://127.0.0.1:5000"
"""Address at which plain `mlflow ui` shows a local store."""
FILE = "links.json"
"""File in the study's tracking folder."""


@dataclass(frozen=True, kw_only=True)
class Links:
    """Addresses of a study in one tracking store."""

    uri: str = ""
    """Tracking URI of the store; empty while no store has the study."""
    arms: str = ""
    """The arms side by side."""
    runs: dict[str, str] = field(default_factory=dict[str, str])
    """Folder of a trained policy -> the run of its training."""
    parents: dict[str, str] = field(default_factory=dict[str, str])
    """Folder of all seeds of a policy (`Policy.stem`) -> its parent run."""


def arms_link(uri: str, experiment: str) -> str:
    """The address of the study's arms side by side; for a local store, that of `mlflow ui`."""
    return f"{_experiment(uri, experiment)}/runs?viewStateShareKey={ARMS_VIEW}"


def weights_link(arms: str) -> str:
    """Address of the chart of the arms' reward weights against the primary metric.

    `arms` is the address of the arms side by side.
    """
    return f"{arms}{CHARTS}"


def runs_link(arms: str) -> str:
    """Address of the training runs' curves, grouped by arm.

    `arms` is the address of the arms side by side.
    """
    return f"{arms.removesuffix(ARMS_VIEW)}{RUNS_VIEW}{CHARTS}"


def run_link(uri: str, experiment: str, run_id: str) -> str:
    """The address of one run."""
    return f"{_experiment(uri, experiment)}/runs/{run_id}"


def artifact_link(uri: str, experiment: str, run_id: str, path: str) -> str:
    """The address of one artifact of a run."""
    return f"{run_link(uri, experiment, run_id)}/artifacts/{path}"


def model_link(uri: str, name: str, version: str) -> str:
    """The address of one version of a registered model."""
    return f"{_base(uri)}/#/models/{quote(name)}/versions/{version}"


def _experiment(uri: str, experiment: str) -> str:
    return f"{_base(uri)}/#/experiments/{experiment}"


def _base(uri: str) -> str:
    return uri.rstrip("/") if uri.startswith("http") else LOCAL


def read_links(folder: Path) -> Links:
    """The addresses in a study's tracking folder, of the last store written; empty before its first run."""
    content: dict[str, Any] = read_json(folder / FILE) or {}
    return Links(**content)


def keep_links(folder: Path, new: Links) -> None:
    """Add addresses to those that `read_links` finds.

    Those of another store are dropped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "links.lock"):
        old = read_links(folder)
        known = old if old.uri == new.uri else Links()
        merged = Links(
            uri=new.uri,
            arms=new.arms or known.arms,
            runs=known.runs | new.runs,
            parents=known.parents | new.parents,
        )
        if merged != old:
            write_json(folder / FILE, asdict(merged))

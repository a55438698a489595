"""A project whose study is one run by two processes: of one machine, or of two nodes."""

from pathlib import Path
from typing import Any

import yaml

from rlassay import ranks
from tests.launcher import Launcher
from tests.workflow.project import SMALLEST, Project, new_project

RUN = "runs/plain/seed1"
CHANGED: dict[str, Any] = {
    "seeds": [1],
    "arms": {"plain": {}},
    "sft": None,
    # An untrained model never answers rightly, but it sometimes stops early: here that pays.
    "rewards": {
        "choice_accuracy": {"weight": 1.0},
        "soft_overlong": {"weight": 1.0, "options": {"max_completion_length": 10, "cache": 8}},
    },
}
RL = {"per_device_train_batch_size": 4, "max_completion_length": 10, "learning_rate": 1e-2}


def new_pair(folder: Path, **where: int) -> Project:
    """The project without results; `where` is its study's `processes`, or `nodes` and `gpus`."""
    project = new_project(folder)
    study: dict[str, Any] = yaml.safe_load(SMALLEST)
    study |= CHANGED | {"rl": study["rl"] | RL} | where
    (folder / "config/studies/smallest.yaml").write_text(yaml.safe_dump(study))
    project.edit("config/config.yaml", "uri: sqlite:///mlflow.db", "enabled: false")
    return project


def run_here(project: Project, launcher: Launcher) -> None:
    """Make the project's data and its run, by two processes of this machine that have the libraries already."""
    log, signs = project.folder / "log", project.folder / "signs"
    signs.mkdir()
    config = project.folder / "config"
    where = ["--study", config / "studies/smallest.yaml", "--config", config / "config.yaml"]
    given = [str(each) for each in (*where, "--results", project.results.parent)]
    assert launcher.start(["prepare_data", *given], log).wait() == 0, log.read_text()
    arguments = ["rl_train", *given, "--policy", RUN]
    launcher.run_ranks("rlassay.cli.stages", arguments, 2, log, **{ranks.FOLDER: str(signs)})

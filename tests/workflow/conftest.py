"""Projects for the tests of the workflow. Test processes side by side share them, so that each is made once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from rlassay.config import load_study
from rlassay.config.policies import policies
from rlassay.layout import Layout
from tests.workflow.project import Project, lend_venv, new_project


@pytest.fixture(scope="session")
def faked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose study is finished as far as Snakemake can tell: every output is there, and empty."""
    return make_once(tmp_path_factory, "faked", fake)


@pytest.fixture
def project(faked: Project, tmp_path: Path) -> Project:
    """A copy of the faked project, to edit."""
    return faked.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose smallest study really ran, by `make`, which printed `make.txt`; copy it to change it."""
    return make_once(tmp_path_factory, "finished", run)


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Project], None]) -> Project:
    """A project that the first test process to ask for it makes."""
    own = factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / name
    with FileLock(shared / f"{name}.lock"):
        if (shared / f"{name}.made").exists():
            return Project(folder)
        shutil.rmtree(folder, ignore_errors=True)
        project = new_project(folder)
        make(project)
        (shared / f"{name}.made").touch()
    return project


def fake(project: Project) -> None:
    """Create every output of the smallest study, empty, and let Snakemake take note."""
    study = load_study(project.folder / "config/studies/smallest.yaml")
    layout = Layout(root=project.results)
    outputs = [layout.data_manifest, layout.report / "index.html", layout.report / "report.json"]
    outputs += [layout.root / "benchmarks/ablation_report.tsv"]
    for folder, policy in policies(study).items():
        outputs += [layout.completions(folder, "test"), layout.scores(folder, "test")]
        outputs += [layout.train_manifest(folder, policy.stage)] if policy.stage != "model" else []
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
    project.snakemake("--touch", "--forceall")


def run(project: Project) -> None:
    """Run the smallest study as a user does."""
    lend_venv(project)
    printed = project.start("make", "ablation_report", "STUDY=smallest", "CORES=2").end()
    (project.folder / "make.txt").write_text(printed)

"""Projects for the tests of the workflow."""

from pathlib import Path

import pytest

from tests.workflow.project import Project, lend_venv, new_project


@pytest.fixture(scope="session")
def faked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose study is finished as far as Snakemake can tell: every output is there, and empty."""
    from rlassay.config import load_study
    from rlassay.config.policies import policies
    from rlassay.layout import Layout

    project = new_project(tmp_path_factory.mktemp("faked") / "project")
    study = load_study(project.folder / "config/studies/smallest.yaml")
    layout = Layout(root=project.results)
    outputs = [layout.data_sentinel, layout.report / "index.html", layout.report / "report.json"]
    outputs += [layout.root / "benchmarks/ablation_report.tsv"]
    for folder, policy in policies(study).items():
        outputs += [layout.completions(folder, "test"), layout.scores(folder, "test")]
        outputs += [layout.train_sentinel(folder)] if policy.stage != "model" else []
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
    project.snakemake("--touch", "--forceall")
    return project


@pytest.fixture
def project(faked: Project, tmp_path: Path) -> Project:
    """A copy of the faked project, to edit."""
    return faked.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose smallest study really ran, by `make`, which printed `make.txt`; copy it to change it."""
    project = new_project(tmp_path_factory.mktemp("finished") / "project")
    lend_venv(project)
    printed = project.start("make", "ablation_report", "STUDY=smallest", "CORES=2").end()
    (project.folder / "make.txt").write_text(printed)
    return project

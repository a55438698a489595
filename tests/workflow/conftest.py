"""Projects for the tests of the workflow."""

from pathlib import Path

import pytest

from tests.workflow.project import FAKE_STUDY, Project, new_project


@pytest.fixture(scope="session")
def faked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose study is finished as far as Snakemake can tell: every output is there, and empty."""
    from rlassay.config import load_study
    from rlassay.config.policies import policies
    from rlassay.layout import Layout

    project = new_project(tmp_path_factory.mktemp("faked") / "project", "fake", FAKE_STUDY)
    study = load_study(project.folder / "config/studies/fake.yaml")
    layout = Layout(root=project.folder / "results/fake")
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

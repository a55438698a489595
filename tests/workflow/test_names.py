"""Names that mean something to a shell, to YAML or to Snakemake reach the jobs as they are."""

import shlex
import subprocess
from pathlib import Path

import pytest

from rlassay.config import Settings
from rlassay.config.load import snakemake_config
from rlassay.layout import Layout
from tests.workflow.project import Project, new_project

# Characters special to a shell or to Snakemake, all in one name, since each takes a run of Snakemake; those special to
# YAML alone, `tests/config/test_load.py` reads back by Snakemake's parser.
NAMES = ['"my" results, it\'s $HOME;x a: b & `more` *?[x]', "2024"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the smallest study."""
    return new_project(tmp_path_factory.mktemp("names") / "project")


def prepare(project: Project, results: str, study: str = "smallest", fails: bool = False) -> str:
    """What Snakemake prints when it prepares the data of a study, as the command that the report shows says."""
    manifest = Layout(root=Path(results) / "smallest").data_manifest
    chosen = snakemake_config(Settings(study=study, results=results))
    return project.start("snakemake", "--cores", "1", str(manifest), "--config", *chosen).end(fails)


@pytest.mark.parametrize("results", NAMES)
def test_the_results_folder_may_have_any_name(project: Project, results: str):
    prepare(project, results)

    assert (project.folder / results / "smallest/data/train.jsonl").is_file()


def test_the_file_of_a_study_may_have_any_name(project: Project):
    name = "it's a{b} $HOME;x.yaml"
    (project.folder / name).write_text((project.folder / "config/studies/smallest.yaml").read_text())

    prepare(project, "elsewhere", study=name)

    assert (project.folder / "elsewhere/smallest/data/train.jsonl").is_file()


def test_braces_in_the_results_folder_are_refused_since_snakemake_reads_them(project: Project):
    printed = prepare(project, "a{b}", fails=True)

    assert "results: got 'a{b}', but Snakemake takes braces for wildcards; rename it" in printed
    assert "Traceback" not in printed


def test_make_passes_a_study_of_any_name_on():
    command = ["make", "--dry-run", "ablation_report", "STUDY=it's mine.yaml", "SCALE=tiny; x"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in printed.splitlines() if "snakemake" in line)
    assert shlex.split(line)[-2:] == ["study=it's mine.yaml", "scale=tiny; x"]

"""Results on disk for the report's tests: written once, copied for tests that damage them."""

import shutil
from pathlib import Path

import pytest

from rlassay.config.settings import ReportSettings, Settings
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report.gather import Results, gather
from tests.report.synthetic import Size, write_synthetic
from tests.report.synthetic_credit import write_with_credit

SETTINGS = Settings(study="synthetic", report=ReportSettings(examples=3))
# Few prompts, so large effects.
EFFECTS = {"untrained": 0.05, "sft": 0.3, "base": 0.45, "accuracy_only": 0.75, "format_only": 0.1, "dr_grpo": 0.45}
SMALL = Size(items=24, samples=4, steps=10, prompts_per_step=2, generations=2, accuracy=EFFECTS)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Layout]:
    """Files of four arms x three seeds with known effects; do not change them."""
    return write_synthetic(tmp_path_factory.mktemp("results"), SMALL)


@pytest.fixture(scope="session")
def results(written: tuple[Study, Layout]) -> Results:
    """The results in `written`."""
    return gather(*written, SETTINGS)


@pytest.fixture
def copied(written: tuple[Study, Layout], tmp_path: Path) -> tuple[Study, Layout]:
    """A copy of `written`, to damage."""
    study, layout = written
    shutil.copytree(layout.root, tmp_path / study.id)
    return study, Layout(root=tmp_path / study.id)


@pytest.fixture(scope="session")
def credit_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Layout]:
    """Files of four arms x two seeds with four kinds of token credit; do not change them."""
    size = Size(seeds=(1, 2), items=4, samples=1, steps=4, prompts_per_step=2, generations=2)
    return write_with_credit(tmp_path_factory.mktemp("credit"), size)


@pytest.fixture(scope="session")
def credit_results(credit_files: tuple[Study, Layout]) -> Results:
    """The results in `credit_files`."""
    return gather(*credit_files, SETTINGS)


@pytest.fixture
def copied_credit(credit_files: tuple[Study, Layout], tmp_path: Path) -> tuple[Study, Layout]:
    """A copy of `credit_files`, to damage."""
    study, layout = credit_files
    shutil.copytree(layout.root, tmp_path / study.id)
    return study, Layout(root=tmp_path / study.id)

"""Results on disk for the report's tests: written once, copied where a test damages them."""

import shutil
from pathlib import Path

import pytest

from rlassay.config.settings import ReportSettings, Settings
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report.gather import Results, gather
from tests.report.synthetic import Size, write_synthetic

SETTINGS = Settings(study="synthetic", report=ReportSettings(examples=3))
# Few prompts, so large effects.
EFFECTS = {"untrained": 0.05, "sft": 0.3, "base": 0.45, "accuracy_only": 0.75, "format_only": 0.1, "dr_grpo": 0.45}
SMALL = Size(items=24, samples=4, steps=10, prompts_per_step=2, generations=2, accuracy=EFFECTS)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Layout]:
    """Four arms x three seeds with known effects; read only."""
    return write_synthetic(tmp_path_factory.mktemp("results"), SMALL)


@pytest.fixture(scope="session")
def results(written: tuple[Study, Layout]) -> Results:
    """The same, read."""
    return gather(*written, SETTINGS)


@pytest.fixture
def copied(written: tuple[Study, Layout], tmp_path: Path) -> tuple[Study, Layout]:
    """A copy to damage."""
    study, layout = written
    shutil.copytree(layout.root, tmp_path / study.id)
    return study, Layout(root=tmp_path / study.id)

"""One warm start and one uninterrupted run for all tests of the stage."""

import shutil
from pathlib import Path

import pytest

from rlassay.layout import Layout
from tests.evaluation.tiny import only
from tests.training.short_run import fresh_layout, load_short, policy_of


@pytest.fixture(scope="session")
def warm_started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study's file and, in `results`, its data and its warm start."""
    from rlassay.training.sft import run_sft

    folder = tmp_path_factory.mktemp("short")
    study = load_short(folder)
    run_sft(study, fresh_layout(folder / "results"), only(study, "sft"))
    return folder


@pytest.fixture(scope="session")
def uninterrupted(warm_started: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The results of a run that nothing disturbed."""
    from rlassay.training.rl import run_rl

    folder = tmp_path_factory.mktemp("uninterrupted")
    study, layout = load_short(folder), copied(warm_started, folder)
    run_rl(study, layout, policy_of(study))
    return layout


@pytest.fixture
def layout(warm_started: Path, tmp_path: Path) -> Layout:
    """Results of this test's own, with data and warm start."""
    return copied(warm_started, tmp_path)


def copied(warm_started: Path, folder: Path) -> Layout:
    """The warm-started results in `folder`."""
    shutil.copytree(warm_started / "results", folder / "results")
    return Layout(root=folder / "results" / "digits")

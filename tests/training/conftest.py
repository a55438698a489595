"""One warm start and one uninterrupted run for all tests of the stage."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from rlassay.config import Study
from rlassay.layout import Layout
from tests.evaluation.tiny import only
from tests.training.short_run import fresh_layout, load_short, policy_of, proof


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


def run_in_two(study: Study, layout: Layout, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a run until Ctrl-C once `step` is saved, then resume it to its end."""
    from rlassay.training.job_callback import JobCallback
    from rlassay.training.rl import run_rl

    save = JobCallback.on_save

    def interrupted(self: Any, args: Any, state: Any, *others: Any, **kwargs: Any) -> None:
        save(self, args, state, *others, **kwargs)
        if state.global_step == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(JobCallback, "on_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_rl(study, layout, policy_of(study))
    run_rl(study, layout, policy_of(study))
    assert [resume["step"] for resume in proof(layout)["resumes"]] == [step]

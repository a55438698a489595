"""What holds for every test: one thread, no network, no display. Set before anything imports torch or matplotlib."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.launcher import Launcher

os.environ.update(
    OMP_NUM_THREADS="1",  # two test processes on two cores
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
)

# A busy machine makes a single example slow now and then; the time limit per test stays. The examples are the same in
# every run, so that a change is what turns a test red; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("rlassay", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("rlassay")


@pytest.fixture(autouse=True)
def heard() -> None:
    """Every test hears what is logged: `rlassay mlflow-sync` silences its own process, which here is the tests'."""
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Starts processes that have the libraries already."""
    launcher = Launcher()
    yield launcher
    launcher.close()


# Folders and files that take longest, some of them minutes for one test.
LONGEST = {"cluster", "workflow", "test_processes.py", "test_shared_jobs.py", "test_strategies.py", "test_deepspeed.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that take longest, so that no test process is left waiting for the others at the end."""
    items.sort(key=lambda item: LONGEST.isdisjoint(item.path.parts))

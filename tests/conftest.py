"""What holds for every test: one thread, no network, no display. Set before anything imports torch or matplotlib."""

import os

import pytest
from hypothesis import settings

os.environ.update(
    OMP_NUM_THREADS="1",  # two test processes on two cores
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
)

# A busy machine makes a single example slow now and then; the time limit per test stays.
settings.register_profile("rlassay", deadline=None)
settings.load_profile("rlassay")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For test processes side by side: a file stays in one process, which makes its fixtures once.

    Tests that a marker groups across files come first, since they take longest.
    """
    grouped = [item for item in items if item.get_closest_marker("xdist_group")]
    alone = [item for item in items if not item.get_closest_marker("xdist_group")]
    for item in alone:
        item.add_marker(pytest.mark.xdist_group(str(item.path)))
    items[:] = grouped + alone

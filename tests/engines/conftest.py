"""Set vLLM up before any test of this folder, or what it tests, imports it."""

import gc
from collections.abc import Iterator

import pytest

from tests.engines.vllm_process import set_up

set_up()


@pytest.fixture(autouse=True)
def _no_engine_outlives_its_test() -> Iterator[None]:
    """An engine that an error's traceback keeps would take the next one's process groups down with it."""
    yield
    gc.collect()

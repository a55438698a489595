"""The browser that the tests of a file share."""

import pytest

from tests.browser.chromium import chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened

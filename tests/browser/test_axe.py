"""axe-core finds nothing serious on either page."""

from pathlib import Path

import axe_core_python as axe
import pytest

from rlassay.report.run import run_report
from tests.browser.chromium import chromium, needs_chromium
from tests.report.conftest import SETTINGS, SMALL
from tests.report.synthetic import write_synthetic

pytestmark = needs_chromium

RUN = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations
.filter(one => ["serious", "critical"].includes(one.impact))
.map(one => `${one.id}: ${one.nodes.slice(0, 3).map(node => node.html.slice(0, 150)).join(" | ")}`))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report of the small study."""
    study, layout = write_synthetic(tmp_path_factory.mktemp("results"), SMALL)
    run_report(study, layout, SETTINGS)
    return layout.report


@pytest.mark.parametrize("name", ["index.html", "completions.html"])
def test_nothing_serious(folder, name):
    source = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    with chromium() as browser:
        for dark in (False, True):
            browser.open(folder / name, dark=dark)
            browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")
            browser.value(source + "; 0")
            found = browser.call("Runtime.evaluate", expression=RUN, awaitPromise=True, returnByValue=True)
            assert found["result"]["value"] == []

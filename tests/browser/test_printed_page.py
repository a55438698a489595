"""The page printed by a real browser: no heading and no head of a table is alone at the foot of a sheet."""

import base64
import re
from collections import defaultdict

import pytest

from rlassay.report.page import write_page
from rlassay.report.run import run_report
from tests.browser.chromium import needs_chromium
from tests.report.conftest import SETTINGS, SMALL
from tests.report.fake_content import fake_content
from tests.report.synthetic import write_synthetic

pytestmark = needs_chromium

HEADS = "h2, h3, h4, summary, caption:not(.unseen), thead tr, dt, .legend"
HEIGHTS = (7.0, 7.9, 8.8, 9.7, 10.6, 11.7)
"""Inches; between them, every heading comes near the foot of a sheet."""

MARK = f"""(() => {{
  const heads = {HEADS!r}, bodies = "p, li, tbody tr, dd, pre, figure, label";
  const tables = [...document.querySelectorAll("table")];
  const marked = [...document.querySelectorAll(`${{heads}}, ${{bodies}}`)].filter(one => !one.closest("nav, .files"));
  return marked.map((one, place) => {{
    const link = document.createElement("a"), spot = one.matches("tr") ? one.cells[0] : one;
    link.href = `http://mark/${{place}}`;
    link.textContent = ".";
    (spot.querySelector(".what, .sort") ?? (one.matches(".legend") ? one.lastElementChild : spot)).prepend(link);
    const around = marked.findLastIndex((other, before) => before < place && other.contains(one));
    const table = tables.indexOf(one.closest("tr")?.closest("table"));
    return [one.matches(heads), around, table, one.textContent.slice(0, 60)];
  }});
}})()"""
"""Puts a link into each heading and each piece of content, since the sheet of a link is legible in a PDF.

Returns of each link: whether it is in a heading, the link of the element around it, the table of its row, and its text.
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The fake report, and that of a small study in which more is computed."""
    fake = tmp_path_factory.mktemp("fake")
    write_page(fake_content(), fake)
    study, layout = write_synthetic(tmp_path_factory.mktemp("small"), SMALL)
    run_report(study, layout, SETTINGS)
    return {"fake": fake / "index.html", "small": layout.report / "index.html"}


def sheets(browser, height):
    """Number of each link of `MARK` -> the sheets on which it is printed; a repeated head of a table is on several."""
    printed = browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=height)["data"]
    pdf = base64.b64decode(printed)
    objects = {int(one[1]): one[2] for one in re.finditer(rb"(\d+) 0 obj\n(.*?)\nendobj", pdf, re.S)}
    found = defaultdict(set)
    for number, page in enumerate(_leaves(objects, _referred(rb"/Pages", _catalog(objects))[0])):
        for note in _referred(rb"/Annots", page):
            link = re.search(rb"/URI \(http://mark/(\d+)\)", objects[note])
            if link:
                found[int(link[1])].add(number)
    return found


def _catalog(objects):
    return next(one for one in objects.values() if b"/Type /Catalog" in one)


def _referred(key, source):
    list_or_one = re.search(key + rb"\s*(\[[^\]]*\]|\d+ 0 R)", source)
    return [int(one) for one in re.findall(rb"(\d+) 0 R", list_or_one[1])] if list_or_one else []


def _leaves(objects, node):
    kids = _referred(rb"/Kids", objects[node])
    if not kids:
        yield objects[node]
    for kid in kids:
        yield from _leaves(objects, kid)


def _alone(marks, found):
    """Texts of the headings that what follows them in the document is not on the same sheet with."""
    alone = []
    for place, (is_head, _, _, text) in enumerate(marks[:-1]):
        follower = next((n for n in range(place + 1, len(marks)) if marks[n][1] != place and n in found), None)
        if is_head and place in found and follower is not None and min(found[place]) != min(found[follower]):
            alone.append(text)
    return alone


def _heads_without_rows(marks, found):
    """Numbers of the tables of which a sheet has the head and no row, or rows and no head."""
    heads, rows = defaultdict(set), defaultdict(set)
    for place, (is_head, _, table, _) in enumerate(marks):
        if table >= 0 and place in found:
            (heads if is_head else rows)[table] |= found[place]
    return [table for table in heads if heads[table] != rows[table]]


@pytest.mark.parametrize("name", ["fake", "small"])
def test_no_heading_and_no_head_of_a_table_is_alone(browser, pages, name):
    browser.open(pages[name])
    marks = browser.value(MARK)
    counts = set()
    for height in HEIGHTS:
        found = sheets(browser, height)
        assert len(found) > 0.8 * len(marks)
        counts.add(max(sheet for each in found.values() for sheet in each))
        assert _alone(marks, found) == [], height
        assert _heads_without_rows(marks, found) == [], height
    assert max(counts) > min(counts) > 3


def test_the_line_below_a_head_goes_over_all_columns(browser, pages):
    """Chromium prints none below a sticky cell."""
    browser.open(pages["fake"])
    browser.call("Emulation.setEmulatedMedia", media="print")
    sticky = "[...document.querySelectorAll('th')].filter(one => getComputedStyle(one).position === 'sticky').length"
    assert browser.value(sticky) == 0
    browser.call("Emulation.setEmulatedMedia", media="screen")
    assert browser.value(sticky) > 0


def test_choices_are_printed_as_what_is_chosen(browser, pages):
    browser.open(pages["fake"])
    shown = "[...document.querySelectorAll('.viewer label, .viewer input')].filter(one => one.checkVisibility())"
    browser.call("Emulation.setEmulatedMedia", media="print")
    chosen = browser.value(f"{shown}.map(one => one.textContent.trim())")
    browser.call("Emulation.setEmulatedMedia", media="screen")
    assert len(chosen) == browser.value("document.querySelectorAll('.viewer fieldset').length") > 0
    assert "all" in chosen
    assert browser.value("document.querySelectorAll('.viewer label').length") > len(chosen)

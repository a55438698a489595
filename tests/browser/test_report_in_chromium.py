"""The written page in a real browser: no request, its own script alone, no sideways scrolling, light and dark."""

import re

import pytest
from PIL import Image

from rlassay.report.figures_style import contrast
from rlassay.report.findings.records import Equivalence
from rlassay.report.page import write_page
from tests.browser.chromium import needs_chromium
from tests.report.fake_content import fake_content
from tests.report.hostile_content import hostile_content

pytestmark = needs_chromium

COLORS = """[...document.querySelectorAll("p, td, th, h1, h2, h3, h4, pre, code, summary, figcaption, svg text, li")]
.filter(element => element.textContent.trim())
.map(element => { const style = getComputedStyle(element);
                  return element.namespaceURI.endsWith("svg") ? style.fill : style.color; })"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The fake and the hostile report."""
    folders = {"fake": fake_content(), "hostile": hostile_content()}
    for name, content in folders.items():
        folders[name] = tmp_path_factory.mktemp(name)
        write_page(content, folders[name])
    return {name: folder / "index.html" for name, folder in folders.items()}


def test_the_browser_detects_requests_scripts_and_overflow(browser, tmp_path):
    page = tmp_path / "index.html"
    page.write_text(
        "<meta name=viewport content='width=device-width'><title>before</title><img src=http://evil.example/x.png>"
        "<script>alert('ran'); document.title = 'ran'; missing()</script><div style='width: 900px'>wide</div>"
    )
    browser.open(page, width=390)
    assert browser.requests == ["http://evil.example/x.png"]
    assert browser.alerts == ["ran"]
    assert any("missing is not defined" in error for error in browser.errors)
    assert browser.value("document.title") == "ran"
    assert browser.value("document.documentElement.scrollWidth") >= 900


@pytest.mark.parametrize("name", ["fake", "hostile"])
def test_the_page_makes_no_request_and_runs_its_own_script_alone(browser, pages, name):
    browser.open(pages[name])
    browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.requests == browser.alerts == browser.errors == []
    assert browser.value("document.title") != "ran"
    assert browser.value("document.scripts.length") == 1
    assert browser.value("getComputedStyle(document.body).margin") == "0px"  # its own style does apply


def test_a_table_sorts_by_a_column_with_the_keyboard_alone(browser, pages):
    browser.open(pages["fake"])
    browser.value("table = document.querySelector('#results table'); head = table.tHead.rows[0].cells[1]; 0")
    labels = "[...table.tBodies[0].rows].map(row => row.cells[0].childNodes[1].textContent)"
    written = ["Untrained model", "SFT", "accuracy + format", "accuracy only", "format only", "Dr. GRPO"]
    assert browser.value(labels) == written  # which is ascending by accuracy
    browser.value("head.querySelector('button').focus()")
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    for sort, shown in (("ascending", written), ("descending", written[::-1]), (None, written)):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, **key)
        assert browser.value("head.getAttribute('aria-sort')") == sort
        assert browser.value(labels) == shown


CONTROLS = """[...document.querySelectorAll("a[href], button, summary, [tabindex='0']")]
.filter(one => one.checkVisibility({contentVisibilityAuto: true}))"""


def test_every_control_is_reached_with_the_keyboard_alone_and_shows_it(browser, pages):
    browser.open(pages["fake"])
    count = browser.value(f"controls = {CONTROLS}; reached = new Set(); unseen = new Set(); controls.length")
    assert count > 50
    for _ in range(count + 20):  # a group of radio buttons is one more
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        browser.value(
            "one = document.activeElement; reached.add(one);"
            "if (one !== document.body && getComputedStyle(one).outlineStyle === 'none') unseen.add(one); 0"
        )
    assert browser.value("controls.filter(one => !reached.has(one)).map(one => one.outerHTML)") == []
    assert browser.value("[...unseen].map(one => one.outerHTML)") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_film_strip_beside_a_long_question_keeps_its_proportions(browser, tmp_path, width):
    Image.new("RGB", (96, 16)).save(tmp_path / "strip.png")
    content = fake_content()
    changes = {"images": ("../strip.png",), "question": "What does the digit do? " * 20}
    example = content.examples[0].model_copy(update=changes)
    folder = tmp_path / "report"
    write_page(content.model_copy(update={"examples": (example,)}), folder)
    browser.open(folder / "index.html", width=width)
    box = browser.value(
        "(({width, height}) => [width, height])(document.querySelector('.prompt img').getBoundingClientRect())"
    )
    assert (box[0] - 2) / (box[1] - 2) == pytest.approx(6, abs=0.1)  # less the border of one pixel
    assert box[0] >= 300
    assert browser.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["fake", "hostile"])
def test_nothing_makes_the_page_scroll_sideways(browser, pages, name, width):
    browser.open(pages[name], width=width)
    browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("innerWidth") == width


def test_the_numbers_of_an_equivalence_break_on_a_phone(browser, tmp_path):
    content = fake_content()
    tested = Equivalence(margin=0.05, p_value=0.0434, p_holm=None)
    same = content.verdicts[2].model_copy(update={"outcome": "equivalent", "equivalence": tested})
    write_page(content.model_copy(update={"verdicts": (same,)}), tmp_path)
    browser.open(tmp_path / "index.html", width=390)
    assert "equivalence: uncorrected p = 0.043" in browser.value("document.querySelector('.verdicts').textContent")
    assert browser.value("document.documentElement.scrollWidth") == 390


CUT = """[...document.querySelectorAll("caption:not(.unseen)")].filter(caption => {
  const text = document.createRange()
  text.selectNodeContents(caption)
  return text.getBoundingClientRect().right > innerWidth
}).map(caption => caption.textContent)"""
"""Titles of tables that go on beyond the edge of a phone."""


def test_titles_of_tables_break_at_the_edge_of_a_phone(browser, pages):
    browser.open(pages["fake"], width=390)
    browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    long = "'accuracy, avg@8 within 75,816 generated tokens'"
    browser.value(f"document.querySelectorAll('caption:not(.unseen)').forEach(one => one.textContent = {long})")
    assert browser.value("document.querySelectorAll('caption:not(.unseen)').length") > 3
    assert browser.value(CUT) == []


EDGES = """[...document.querySelectorAll(".scroll")].filter(one => one.checkVisibility())
.filter(one => one.scrollWidth === one.clientWidth)
.map(one => one.getBoundingClientRect()).map(box => [box.right, (box.top + box.bottom) / 2])"""
"""Right edge and middle of the tables that go on nowhere."""


def test_a_table_that_fits_has_no_shadow_at_its_edge(browser, pages, tmp_path):
    browser.open(pages["fake"], width=1440)
    edges = browser.value(EDGES)
    assert any(right % 1 for right, _ in edges)  # a pixel that is only half inside
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        found = {picture.getpixel((int(right) - back, int(middle)))[:3] for right, middle in edges for back in (0, 1)}
        assert found == {picture.getpixel((2, 2))[:3]}


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_stands_out_from_the_paper(browser, pages, dark):
    browser.open(pages["fake"], dark=dark)
    paper = _hex(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert (contrast(paper, "#000000") < 2) == dark
    colors = {_hex(color) for color in browser.value(COLORS)}
    assert len(colors) >= 3
    assert {color: contrast(color, paper) for color in colors if contrast(color, paper) < 4.5} == {}


def _hex(color):
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", color)[:3])

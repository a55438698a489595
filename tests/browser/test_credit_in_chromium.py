"""The credit viewer in a real browser: switches work without a script, and shaded words are legible."""

import re

import pytest
from PIL import Image

from rlassay.report.figures import assign_marks
from rlassay.report.figures_style import contrast
from rlassay.report.page import render_page
from tests.browser.chromium import needs_chromium
from tests.report.fake_content import fake_content

pytestmark = needs_chromium

SHOWN = """[...document.querySelectorAll("{}")].filter(element => element.getClientRects().length).length"""
LEVELS = """[...document.querySelectorAll(".watched pre span[title]")]
.forEach((word, place) => word.className = {}[place % {}])"""
WORDS = """[...document.querySelectorAll(".watched pre span[title]")].map(word => {
  const style = getComputedStyle(word), paper = getComputedStyle(word.closest("pre"));
  return [style.color, style.backgroundColor, paper.backgroundColor]; })"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The fake report with its image, without figures."""
    folder = tmp_path_factory.mktemp("credit")
    Image.new("L", (16, 8), 90).save(folder / "digit.png")
    (folder / "report").mkdir()
    content = fake_content()
    text = render_page(content, assign_marks(content), [], folder / "report")
    (folder / "report" / "index.html").write_text(text, encoding="utf-8")
    return folder / "report" / "index.html"


def test_switches_show_one_scene_and_one_arm(browser, page):
    _open(browser, page)
    assert browser.value(SHOWN.format(".scene")) == 1
    assert browser.value(SHOWN.format(".watched")) == 4
    browser.value("document.querySelector('#show-arm-2').click()")
    assert browser.value(SHOWN.format(".watched")) == 1
    assert browser.value(SHOWN.format(".watched.arm-2")) == 1
    browser.value("document.querySelector('#show-scene-1').click()")
    assert browser.value(SHOWN.format(".scene")) == 1
    assert browser.value(SHOWN.format(".scene-1")) == 1


def test_the_chosen_signal_shades_the_words_and_shows_its_scale(browser, page):
    _open(browser, page)
    shade = "getComputedStyle(document.querySelector('.arm-1 pre span:nth-of-type(2)')).backgroundColor"
    seen = set()
    for signal in ("weight", "perception", "entropy", "dominance"):
        browser.value(f"document.querySelector('#shade-{signal}').click()")
        seen.add(browser.value(shade))
        assert browser.value(SHOWN.format(".viewer > .shades")) == 1
        assert browser.value(SHOWN.format(f".shades-{signal}")) == 1
    assert len(seen) == 4
    assert "rgba(0, 0, 0, 0)" not in seen


def test_the_image_is_beside_the_question_and_below_every_tint(browser, page):
    _open(browser, page)
    boxes = "[...document.querySelectorAll('.scene-0 .seen use')].map(part => part.getBoundingClientRect().width)"
    widths = browser.value(boxes)
    assert len(widths) == 1 + 3
    assert min(widths) > 100
    assert browser.requests == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("signal", ["weight", "perception", "entropy", "dominance"])
def test_every_shade_keeps_the_words_legible(browser, page, signal, dark):
    _open(browser, page, dark=dark)
    browser.value(f"document.querySelector('#shade-{signal}').click()")
    marks = [f"{signal[0]}{level}" for level in range(-5 if signal == "weight" else 1, 6) if level]
    browser.value(LEVELS.format(marks, len(marks)))
    found = {(ink, _over(shade, paper)) for ink, shade, paper in browser.value(WORDS)}
    assert len(found) == len(marks)
    assert {pair: contrast(_hex(pair[0]), pair[1]) for pair in found if contrast(_hex(pair[0]), pair[1]) < 4.5} == {}


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_makes_the_page_scroll_sideways(browser, page, width):
    _open(browser, page, width=width)
    assert browser.value("document.documentElement.scrollWidth") == width


def _open(browser, page, **window):
    """The page with its folded sections open: the arms of the fake study have the same credit."""
    browser.open(page, **window)
    browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")


def _parts(color):
    return [float(part) for part in re.findall(r"[\d.]+", color)]


def _hex(color):
    return "#" + "".join(f"{round(part):02x}" for part in _parts(color)[:3])


def _over(shade, paper):
    """The opaque colour of a translucent shade on its paper."""
    *front, strength = [*_parts(shade), 1.0][:4]
    mixed = [strength * above + (1 - strength) * below for above, below in zip(front, _parts(paper)[:3], strict=True)]
    return "#" + "".join(f"{round(part):02x}" for part in mixed)

"""The completion browser from disk in a real browser: filters, differences, keys, width, and hostile text."""

import time

import pytest

from rlassay.report.completions import browser as completions
from rlassay.report.gather import gather
from rlassay.report.run import build_content
from tests.browser.chromium import needs_chromium
from tests.report.conftest import SETTINGS, SMALL
from tests.report.synthetic import write_synthetic

pytestmark = needs_chromium

SET = "form.elements.{0}.value = {1!r}; form.elements.{0}.dispatchEvent(new Event('input', {{bubbles: true}}))"
CARDS = "document.querySelectorAll('.one').length"
COUNT = "document.getElementById('count').textContent"
PRESS = "document.dispatchEvent(new KeyboardEvent('keydown', {{key: {!r}, bubbles: true}})); current"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Four arms x three seeds with known effects."""
    return gather(*write_synthetic(tmp_path_factory.mktemp("results"), SMALL), SETTINGS)


@pytest.fixture(scope="module")
def page(results):
    """The browser of the small study, in several pages."""
    folder = results.layout.report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completions, "PAGE_SIZE", 20_000)
        completions.write_browser(results, build_content(results, SETTINGS.report), folder, rollout_steps=2)
    assert len(list((folder / "completions").glob("test-*.js"))) > 2
    return folder / "completions.html"


def until(browser, expression, wanted):
    """Wait until an expression has a value; pages of data load in the meantime."""
    for _ in range(100):
        if browser.value(expression) == wanted:
            return
        time.sleep(0.05)
    assert browser.value(expression) == wanted


def opened(browser, page, **window):
    browser.open(page, **window)
    until(browser, CARDS, 14 * 5)  # untrained, SFT and 4 arms x 3 seeds; 4 samples and a greedy one each


def test_the_first_prompt_shows_without_any_other_file(browser, page):
    opened(browser, page)
    assert browser.requests == browser.alerts == browser.errors == []
    assert browser.value(COUNT) == "24 of 24 prompts"
    assert browser.value("document.querySelectorAll('.policy').length") == 6
    assert browser.value("document.querySelector('#prompt img').naturalWidth") == 16


def test_filters_search_and_flips(browser, page, results):
    opened(browser, page)
    browser.value(SET.format("right", "1"))
    means = {key: scores.means for (key, _), scores in results.scores.items()}
    some_right = (
        sum(frame["sampled", "choice_accuracy"] + frame["greedy", "choice_accuracy"] for frame in means.values()) > 0
    )
    until(browser, COUNT, f"{some_right.sum()} of 24 prompts")
    assert browser.value("document.querySelectorAll('.one .wrong').length") == 0
    assert all(url.startswith("file:") and "/completions/test-" in url for url in browser.requests)
    browser.value("form.reset()")
    until(browser, CARDS, 14 * 5)

    before, after = (
        sum(means[f"runs/{arm}/seed{seed}"]["sampled", "choice_accuracy"] for seed in (1, 2, 3)) / 3
        for arm in ("base", "accuracy_only")
    )
    browser.value(SET.format("flip", "won"))
    until(browser, COUNT, f"{((before < 0.5) & (after >= 0.5)).sum()} of 24 prompts")
    browser.value("form.reset()")
    until(browser, CARDS, 14 * 5)

    browser.value(SET.format("longest", "0"))
    until(browser, COUNT, "0 of 24 prompts")
    assert browser.value("document.getElementById('place').textContent") == "No prompt passes the filters."
    browser.value("form.reset()")
    until(browser, CARDS, 14 * 5)
    browser.value(SET.format("search", "no such words anywhere"))
    until(browser, COUNT, "0 of 24 prompts")


def test_word_differences_from_the_chosen_completion(browser, page):
    opened(browser, page)
    parts = "differences(words({!r}), words({!r})).map(part => (part.nodeName + part.textContent))"
    assert browser.value(parts.format("the red cat sat", "the cat sat down")) == [
        "#textthe ",
        "DELred ",
        "#textcat sat",
        "INS down",
    ]
    assert browser.value(parts.format("<think>7</think>", "<think>9</think>")) == [
        "#text<think>",
        "DEL7",
        "INS9",
        "#text</think>",
    ]
    browser.value("document.querySelectorAll('.policy')[1].querySelector('.one button').click()")
    assert browser.value("document.querySelectorAll('[aria-pressed=true]').length") == 1
    assert browser.value("document.querySelectorAll('ins, del').length") > 0


def test_keys_turn_prompts_and_the_address_opens_one(browser, page):
    opened(browser, page)
    keys = browser.value("listed.map(entry => entry[0])")
    assert browser.value("current") == keys[0]
    assert browser.value(PRESS.format("j")) == keys[1]
    assert browser.value(PRESS.format("k")) == keys[0]
    browser.value(PRESS.format("/"))
    assert browser.value("document.activeElement.name") == "search"
    browser.value(f"location.hash = 'test/{keys[-1]}'")
    until(browser, "current", keys[-1])
    browser.value("location.hash = 'training/'")
    until(browser, "source.key", "training")
    until(browser, "document.querySelector('.one > :last-child')?.textContent.includes('advantage')", True)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_makes_the_page_scroll_sideways(browser, page, width):
    opened(browser, page, width=width)
    assert browser.value("document.documentElement.scrollWidth") == width


def test_a_page_without_its_folder_says_so(browser, page, tmp_path):
    alone = tmp_path / "completions.html"
    alone.write_bytes(page.read_bytes())
    opened(browser, alone)
    browser.value("show(listed[listed.length - 1][0])")
    until(browser, "document.querySelectorAll('[role=alert]').length", 1)

"""Colours and markers of figures: readers can distinguish all arms on light and on dark paper."""

import re
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from rlassay.report.figures import assign_marks, draw_figures
from rlassay.report.figures_style import (
    DARK_CONTRAST,
    DARK_PAPER,
    INK,
    LIGHT_PAPER,
    ON_DARK,
    PALETTE,
    SOFT,
    contrast,
    dark_rules,
    readable,
)
from tests.report.fake_content import fake_content


def test_colors_are_the_studys_own_or_the_palettes_and_constant():
    marks = assign_marks(fake_content())
    assert marks["base"].color == "#0072b2"  # the study's choice
    assert [marks[arm].color for arm in ("accuracy_only", "format_only", "dr_grpo")] == list(PALETTE[1:4])
    assert len({marks[arm].marker for arm in ("base", "accuracy_only", "format_only", "dr_grpo")}) == 4


def test_no_two_of_twenty_arms_look_alike():
    content = fake_content()
    arms = tuple(content.arms[1].model_copy(update={"name": f"arm{place}"}) for place in range(20))
    marks = assign_marks(content.model_copy(update={"arms": arms}))
    assert len({(mark.color, mark.marker) for name, mark in marks.items() if name.startswith("arm")}) == 20


def test_a_color_too_pale_for_the_paper_is_darkened():
    content = fake_content()
    pale = content.arms[0].model_copy(update={"color": "#ffff66"})
    marks = assign_marks(content.model_copy(update={"arms": (pale, *content.arms[1:])}))
    assert contrast(marks["base"].color, LIGHT_PAPER) >= 3.2
    assert readable("#0072b2", LIGHT_PAPER) == "#0072b2"


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#777777") == pytest.approx(4.48, abs=0.005)  # the well-known grey that just fails 4.5


def test_ink_and_palette_stand_out_on_both_papers():
    for ink in (INK, SOFT):
        assert contrast(ink, LIGHT_PAPER) >= 4.5
        assert contrast(ON_DARK[ink], DARK_PAPER) >= 4.5
    for color in PALETTE:
        assert contrast(color, LIGHT_PAPER) >= 3
        assert contrast(readable(color, DARK_PAPER, DARK_CONTRAST), DARK_PAPER) >= 4.5


@pytest.mark.parametrize(
    "deficiency",
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ],
    ids=["protanopia", "deuteranopia"],
)
def test_first_arms_differ_for_colour_blind_readers(deficiency):
    # Matrices: Machado, Oliveira and Fernandes (2009), severity 1. Distances in CIE Lab; 10 is plainly visible.
    seen = [_lab(np.clip(np.array(deficiency) @ _linear(color), 0, 1)) for color in PALETTE[:4]]
    assert min(np.linalg.norm(first - second) for first, second in combinations(seen, 2)) > 10


def _linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _lab(linear):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_color_of_every_figure_has_a_value_on_dark_paper():
    marks = assign_marks(fake_content())
    rules = dark_rules([mark.color for mark in marks.values()])
    for drawing in draw_figures(fake_content(), marks):
        used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', drawing.svg))
        assert used
        for color in used:
            assert f'[fill="{color}"]' in rules

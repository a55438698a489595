"""Attribution to the ingredients of a design, from planted effects whose numbers are known by hand."""

from html import unescape

import numpy as np
import pytest

from rlassay.report.figures import assign_marks, draw_figures
from rlassay.report.findings.attribution import build_attribution
from rlassay.report.findings.records import Attribution, AttributionMethod, IngredientEffect
from rlassay.report.numbers import PairedDifference
from rlassay.report.page import render_markdown, render_page
from rlassay.report.run import build_frames
from rlassay.report.verdicts import compare_with_baseline
from rlassay.stats import paired_difference, shapley
from tests.report.fake_content import fake_content
from tests.report.fake_design import FACTORIAL, FRACTION, additive, cell, designed, interacting

ONE_BY_ONE = ("shapley", "main_effect", "leave_one_out", "add_one_in")


def _means(found, kind):
    (method,) = [method for method in found.methods if method.kind == kind]
    return {"".join(one.ingredients): one.difference.effect for one in method.effects}


def _refused(found):
    return {method.kind: method.refused for method in found.methods if method.refused}


def test_without_interactions_every_method_finds_the_planted_effects():
    found = build_attribution(designed(additive), 0.95)
    assert [method.kind for method in found.methods] == [*ONE_BY_ONE, "interaction"]
    for kind in ONE_BY_ONE:
        assert _means(found, kind) == pytest.approx({"a": 0.1, "b": 0.05, "c": -0.02}, abs=1e-6)
    assert _means(found, "interaction") == pytest.approx({"ab": 0, "ac": 0, "bc": 0}, abs=1e-6)
    assert (_refused(found), found.note) == ({}, "")


def test_a_planted_interaction_is_found_and_shared_by_its_ingredients():
    # `a` with `b` adds 8 points: half of them to the main effect and the Shapley value of each, all of them to what
    # leaving out takes, none to what adding alone gives.
    found = build_attribution(designed(interacting), 0.95)
    assert _means(found, "interaction") == pytest.approx({"ab": 0.08, "ac": 0, "bc": 0}, abs=1e-6)
    assert _means(found, "shapley") == pytest.approx({"a": 0.14, "b": 0.09, "c": -0.02}, abs=1e-6)
    assert _means(found, "main_effect") == pytest.approx({"a": 0.14, "b": 0.09, "c": -0.02}, abs=1e-6)
    assert _means(found, "leave_one_out") == pytest.approx({"a": 0.18, "b": 0.13, "c": -0.02}, abs=1e-6)
    assert _means(found, "add_one_in") == pytest.approx({"a": 0.1, "b": 0.05, "c": -0.02}, abs=1e-6)
    ab, ac, _ = found.methods[-1].effects
    assert ab.label == "accuracy reward × format reward"
    assert ab.difference.low > 0
    assert ac.difference.low < 0 < ac.difference.high


def test_unequal_interactions_separate_shapley_values_from_main_effects():
    # 12 points only for all three together: a third of them to each Shapley value, a quarter to each main effect.
    found = build_attribution(designed(lambda has: 0.3 + 0.12 * (len(has) == 3)), 0.95)
    assert _means(found, "shapley") == pytest.approx(dict.fromkeys("abc", 0.04), abs=1e-6)
    assert _means(found, "main_effect") == pytest.approx(dict.fromkeys("abc", 0.03), abs=1e-6)
    scores = {has: 0.3 + 0.12 * (len(has) == 3) for has in FACTORIAL}
    assert _means(found, "shapley") == pytest.approx(shapley(scores), abs=1e-6)


def test_an_ingredient_added_alone_has_the_numbers_of_its_verdict():
    results = designed(interacting)
    verdicts = {one.arm: one for one in compare_with_baseline(results, 0.95)}
    for one in build_attribution(results, 0.95).methods[3].effects:
        expected = verdicts["".join(one.ingredients)]
        same = {"p_holm": None, "family_size": 0}
        assert one.difference == expected.difference.model_copy(update=same)
        assert one.by_seed == pytest.approx(expected.by_seed, abs=1e-6)


def test_the_interval_of_a_main_effect_is_that_of_the_weighted_scores():
    # With a warm start that all seeds share, arms are independent samples: V_a and V_e add over the eight of them.
    one = build_attribution(designed(interacting), 0.95).methods[1].effects[0]
    cells = {has: cell(has, interacting(has)) for has in FACTORIAL}
    total = sum((1 if "a" in has else -1) / 4 * values for has, values in cells.items())
    between = sum(values.mean(axis=1).var(ddof=1) / 3 for values in cells.values()) / 16
    items = total.mean(axis=0).var(ddof=1) / 40
    pairs = sum(_residuals(values).var() / (2 * 39) for values in cells.values()) / 16
    assert one.by_seed == pytest.approx(total.mean(axis=1), abs=1e-6)
    half = one.difference.high - one.difference.effect
    # Cochran's value lies between the quantiles of t(39) and t(2).
    assert 2.0227 < half / np.sqrt(between + max(0.0, items - pairs)) < 4.3027
    assert half != pytest.approx(paired_difference(total, np.zeros_like(total)).high - total.mean(), rel=1e-3)


def _residuals(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()


def test_numbers_whose_arms_are_missing_are_refused_by_name():
    alone = [has for has in FACTORIAL if len(has) <= 1]
    found = build_attribution(designed(additive, alone, "add_one_in"), 0.95)
    assert _means(found, "add_one_in") == pytest.approx({"a": 0.1, "b": 0.05, "c": -0.02}, abs=1e-6)
    assert set(_refused(found)) == {"shapley", "main_effect", "leave_one_out", "interaction"}
    assert _refused(found)["shapley"] == (
        "Shapley value is not shown: the study has no arm 'accuracy reward + format reward', 'accuracy reward + length "
        "reward', 'format reward + length reward' or 'accuracy reward + format reward + length reward'."
    )


def test_an_unfinished_arm_takes_only_the_numbers_that_need_it():
    lacking = frozenset("ac")
    found = build_attribution(designed(additive, unfinished=[lacking]), 0.95)
    assert set(_means(found, "leave_one_out")) == {"a", "c"}
    assert set(_means(found, "add_one_in")) == {"a", "b", "c"}
    assert _means(found, "shapley") == {}
    assert _refused(found)["leave_one_out"] == (
        "Leave-one-out of 'format reward' is not shown: no run is finished of arm 'accuracy reward + length reward'."
    )


def test_main_effects_of_a_fraction_name_the_interactions_mixed_with_them():
    # c = (y_ac + y_bc - y_none - y_ab) / 2 = (.08 + .03 - 0 - .23) / 2: its own -.02 less half of a with b.
    found = build_attribution(designed(interacting, FRACTION, "fractional"), 0.95)
    assert _means(found, "main_effect") == pytest.approx({"a": 0.14, "b": 0.09, "c": -0.06}, abs=1e-6)
    assert found.note == (
        "The arms are a fraction of all combinations: a main effect cannot be told from certain interactions: "
        "'accuracy reward' from that of 'format reward × length reward'; 'format reward' from that of 'accuracy "
        "reward × length reward'; 'length reward' from that of 'accuracy reward × format reward'."
    )
    assert set(_refused(found)) == {"shapley", "leave_one_out", "add_one_in", "interaction"}


def test_a_part_of_a_fraction_in_which_ingredients_vary_together_is_refused():
    found = build_attribution(designed(additive, FRACTION[:2], "fractional"), 0.95)
    assert _means(found, "main_effect") == {}
    assert found.note == ""


def test_arms_written_by_hand_have_no_attribution():
    assert build_attribution(designed(additive, design="explicit"), 0.95) is None


def test_the_answer_says_what_each_ingredient_changes_over_the_settings_of_the_others(tmp_path):
    def effect(label, change, low, high):
        numbers = PairedDifference(
            effect=change,
            low=low,
            high=high,
            p_value=0.1,
            p_holm=None,
            family_size=0,
            num_seeds=2,
            num_items=9,
            covers="items",
        )
        return IngredientEffect(ingredients=(label,), label=label, difference=numbers, by_seed=())

    effects = (effect("format", 0.01, -0.002, 0.022), effect("brevity", -0.024, -0.041, -0.007))
    method = AttributionMethod(kind="main_effect", title="main effect", effects=effects, refused="")
    content = fake_content().model_copy(update={"attribution": Attribution(methods=(method,), note="")})
    sentence = (
        "Averaged over the settings of the other ingredients, 'format' changes accuracy by +1.0 points (95% interval "
        "−0.2 to +2.2) and 'brevity' by −2.4 points (−4.1 to −0.7). These are no verdicts, since they are not "
        "corrected for several comparisons."
    )
    marks = assign_marks(content)
    drawings = draw_figures(content, marks)
    page = unescape(render_page(content, marks, drawings, tmp_path))
    assert page.index(sentence) < page.index('id="attribution"')
    assert sentence in render_markdown(content, drawings)
    alone = Attribution(methods=(method.model_copy(update={"kind": "add_one_in"}),), note="")
    without = content.model_copy(update={"attribution": alone})
    assert "Averaged over" not in render_markdown(without, drawings)


@pytest.mark.parametrize("arms", [FACTORIAL, FRACTION])
def test_the_page_shows_the_numbers_after_the_verdicts(tmp_path, arms):
    design = "factorial" if arms is FACTORIAL else "fractional"
    found = build_attribution(designed(interacting, arms, design), 0.95)
    content = fake_content().model_copy(update={"attribution": found})
    marks = assign_marks(content)
    drawings = draw_figures(content, marks)
    page, text = render_page(content, marks, drawings, tmp_path), render_markdown(content, drawings)
    assert page.index('id="verdicts"') < page.index('id="attribution"') < page.index('id="results"')
    assert "+14.0" in page
    assert "main effect, accuracy reward: +14.0" in text
    assert [drawing.name for drawing in drawings].count("attribution") == 1
    assert ("accuracy reward × format reward" in page) is (arms is FACTORIAL or "cannot be told" in page)
    rows = build_frames(content)["attribution"]
    assert len(rows) == (15 if arms is FACTORIAL else 3)
    assert set(rows["ingredients"]) >= {"a", "b", "c"}


def test_a_page_without_a_design_has_no_such_section(tmp_path):
    content = fake_content()
    marks = assign_marks(content)
    drawings = draw_figures(content, marks)
    assert 'id="attribution"' not in render_page(content, marks, drawings, tmp_path)
    assert "## Attribution" not in render_markdown(content, drawings)
    assert "attribution" not in build_frames(content)

"""Designs: the arms that each makes, worked by hand; defining relations; errors that name the ingredient."""

from itertools import product

import pytest

from rlassay.config import Study, expand_design, load_study
from rlassay.config.arms import differences
from rlassay.config.designs import defining_words, design_arms, members
from rlassay.config.fingerprints import rl_id
from tests.config.studies import GONE, content, problems, study

INGREDIENTS = {
    "format": {"label": "format reward", "rewards": {"think_answer_format": {"weight": 0.7}}},
    "kl": {"rl": {"beta": 0.1}},
    "entropy": {"credit": [{"kind": "entropy_filter", "fraction": 0.4}]},
    "scaling": {"credit": [{"kind": "trajectory_scaling", "min_scale": 0.9}]},
}


def designed(kind: str, names: str = "format kl entropy", /, **edits: object) -> dict:
    """Edits that make the built-in study a design over some of the ingredients; weights are 1 and 0 without them."""
    chosen = {name: INGREDIENTS[name] for name in names.split()}
    baseline = "all" if kind == "leave_one_out" else "none"
    base = {"design": kind, "ingredients": chosen, "baseline": baseline, "arms": {}}
    return {"rewards__think_answer_format__weight": 0.0, **base, **edits}


def has(kind: str, names: str = "format kl entropy", /, **edits: object) -> dict[str, tuple[str, ...]]:
    """The ingredients of each arm."""
    return {name: arm.has for name, arm in study(**designed(kind, names, **edits)).arms.items()}


def test_each_design_makes_the_arms_that_its_name_says():
    assert has("leave_one_out") == {
        "all": ("format", "kl", "entropy"),
        "kl_and_entropy": ("kl", "entropy"),
        "format_and_entropy": ("format", "entropy"),
        "format_and_kl": ("format", "kl"),
    }
    assert has("add_one_in") == {"none": (), "format": ("format",), "kl": ("kl",), "entropy": ("entropy",)}
    assert has("factorial", "format kl") == {"none": (), "format": ("format",), "kl": ("kl",), "all": ("format", "kl")}
    assert has("factorial", "kl") == {"none": (), "kl": ("kl",)}
    # entropy follows from the others: it is there if exactly one of the two is.
    assert has("fractional") == {
        "none": (),
        "format_and_kl": ("format", "kl"),
        "format_and_entropy": ("format", "entropy"),
        "kl_and_entropy": ("kl", "entropy"),
    }
    assert list(has("fractional", "format kl entropy scaling"))[-1] == "all"


def test_arms_have_the_recipes_that_they_would_have_by_hand():
    edits = designed("factorial", "format entropy scaling")
    entropy, scaling = INGREDIENTS["entropy"]["credit"][0], INGREDIENTS["scaling"]["credit"][0]
    weight = {"think_answer_format": {"weight": 0.7}}
    paths = ["rewards.think_answer_format.weight", "credit"]
    by_hand = {
        "none": {},
        "format": {"rewards": weight, "varies": paths[:1]},
        "entropy": {"credit": [entropy], "varies": paths[1:]},
        "scaling": {"credit": [scaling], "varies": paths[1:]},
        "format_and_entropy": {"rewards": weight, "credit": [entropy], "varies": paths},
        "format_and_scaling": {"rewards": weight, "credit": [scaling], "varies": paths},
        "entropy_and_scaling": {"credit": [entropy, scaling], "varies": paths[1:]},
        "all": {"rewards": weight, "credit": [entropy, scaling], "varies": paths},
    }
    made = study(**edits)
    written = study(rewards__think_answer_format__weight=0.0, baseline="none", arms=by_hand)
    assert list(made.arms) == list(by_hand)
    for name, arm in made.arms.items():
        assert (arm.recipe, arm.varies) == (written.arms[name].recipe, written.arms[name].varies)
        assert rl_id(made, name, 1) == rl_id(written, name, 1)
    assert differences(made) == differences(written)


def test_labels_say_what_an_arm_has_or_lacks():
    labels = {name: arm.label for name, arm in study(**designed("factorial", "format kl")).arms.items()}
    assert labels == {"none": "none", "format": "format reward", "kl": "kl", "all": "format reward + kl"}
    lacking = [arm.label for arm in study(**designed("leave_one_out", "format kl")).arms.values()]
    assert lacking == ["all", "all but format reward", "all but kl"]
    assert study(**designed("factorial", "format kl")).ingredients == {"format": "format reward", "kl": "kl"}


def test_a_design_takes_labels_colours_and_further_arms():
    extra = {"none": {"label": "accuracy", "color": "#123456"}, "long": {"from": "kl", "rl": {"beta": 0.3}}}
    extra["long"]["varies"] = ["rl.beta"]
    found = study(**designed("add_one_in", "format kl", arms=extra))
    assert list(found.arms) == ["none", "format", "kl", "long"]
    assert (found.arms["none"].label, found.arms["none"].color) == ("accuracy", "#123456")
    assert (found.arms["long"].recipe.rl.beta, found.arms["long"].has) == (0.3, ())
    assert found.family == ("format", "kl", "long")


def test_only_selected_arms_run_and_they_keep_their_fingerprints():
    whole, part = study(), study(select_arms=["base", "dr_grpo"])
    assert list(part.arms) == ["base", "dr_grpo"]
    assert part.family == ("dr_grpo",)
    assert rl_id(part, "dr_grpo", 3) == rl_id(whole, "dr_grpo", 3)
    assert list(has("factorial", select_arms=["all", "none"])) == ["none", "all"]
    assert problems(select_arms=["bse"]) == [
        "select_arms.0: got the text 'bse', expected an arm: one of base, accuracy_only, format_only, dr_grpo; did you "
        "mean 'base'?",
        "select_arms: lacks the baseline 'base', with which the others are compared; add it, or declare one of these "
        "arms as the baseline",
    ]


def test_an_arm_that_cannot_run_may_be_left_out():
    # Without any reward, `none` would learn nothing.
    edits = designed("factorial", "format kl", rewards__choice_accuracy__weight=0.0)
    assert problems(**edits) == [
        "arms.none.rewards: every weight is 0, so nothing would be learned; expected at least one other than 0 (also "
        "in kl)"
    ]
    assert list(study(**edits | {"select_arms": ["format", "all"], "baseline": "all"}).arms) == ["format", "all"]


def test_arms_of_a_fraction_have_an_even_number_of_each_defining_word():
    generating = {"d": ("a", "b"), "e": ("a", "c"), "f": ("b", "c")}
    words = defining_words(generating)
    # 2^(6-3) of resolution III: abd, ace, bcf, bcde, acdf, abef, def.
    assert sorted("".join(sorted(word)) for word in words) == ["abd", "abef", "acdf", "ace", "bcde", "bcf", "def"]
    sections = {name: {} for name in "abcdef"}
    found = members({"design": "fractional", "ingredients": sections, "generators": generating})
    assert len(found) == 8
    assert all(len(word & set(arm)) % 2 == 0 for word, arm in product(words, found.values()))
    # Any two ingredients appear together, apart and alone equally often: main effects are orthogonal.
    for first, second in product("abcdef", repeat=2):
        pairs = [(first in arm, second in arm) for arm in found.values()]
        assert first == second or {pairs.count(pair) for pair in product((False, True), repeat=2)} == {2}


def test_expand_design_takes_a_file_or_a_study():
    written = content(**designed("factorial", "format kl"))
    arms = expand_design(written)
    assert list(arms) == ["none", "format", "kl", "all"]
    assert expand_design(study(**designed("factorial", "format kl"))) == arms
    assert expand_design(content()) == study().arms


def test_the_reward_study_is_a_whole_factorial():
    found = load_study("reward_ingredients")
    assert isinstance(found, Study)
    assert sorted(arm.has for arm in found.arms.values()) == sorted(
        tuple(name for name, there in zip(found.ingredients, some, strict=True) if there)
        for some in product((False, True), repeat=3)
    )


CONFOUND = {"kl": {"rl": {"beta": 0.1, "epsilon": 0.3}, "varies": ["rl.beta", "rl.delta"]}}
OVERLAP = {"kl": {"rl": {"beta": 0.1}}, "more": {"rl": {"beta": 0.2}}}
WRONG = [
    ({"ingredients": {"kl": {"rl": {"bta": 0.1}}}}, ["ingredients.kl.rl.bta: unknown key; expected one of"]),
    (
        {"ingredients": {"kl": {"rll": {}}}},
        ["ingredients.kl.rll: unknown key; expected one of algorithm, label, varies"],
    ),
    ({"ingredients": {"kl": {"rl": {"beta": -1}}}}, ["ingredients.kl.rl.beta: got the number -1, expected"]),
    ({"ingredients": {"kl": {"rl": {"beta": 0}}}}, ["ingredients.kl: changes nothing in the study's own sections"]),
    ({"ingredients": {"kl": {"data": {}}}}, ["ingredients.kl.data: unknown key; expected one of"]),
    (
        {"ingredients": CONFOUND},
        ["ingredients.kl: changes rl.epsilon, which its `varies` does not declare"],
    ),
    ({"ingredients": CONFOUND}, ["ingredients.kl.varies: nothing below 'rl.delta' is changed"]),
    ({"ingredients": OVERLAP}, ["ingredients.more: rl.beta is changed by 'kl' too, so that an arm with both"]),
    ({"ingredients": {"none": {"rl": {"beta": 0.1}}}}, ["ingredients.none: 'none' is the name of the arm that has"]),
    ({"ingredients": {}}, ["ingredients: design factorial has 0 of them, expected 1 to 10"]),
    ({"generators": {"kl": ["format"]}}, ["generators: design factorial uses none; leave them out, or set"]),
    ({"arms": {"none": {"rl": {}}}}, ["arms.none.rl: 'none' is an arm of the design, of which only label and color"]),
    ({"design": "explicit", "arms": {"none": {}}}, ["ingredients: only a design uses it; set design, or leave it out"]),
    ({"design": "factorail"}, ["design: got the text 'factorail', expected one of explicit, leave_one_out"]),
    ({"baseline": "nne"}, ["baseline: got the text 'nne', expected an arm: one of none, format"]),
    ({"arms": 3}, ["arms: got the number 3, expected a mapping"]),
    ({"rl__max_steps": 0}, ["rl.max_steps: got the number 0, expected a number of at least 1"]),
]


@pytest.mark.parametrize(("edits", "expected"), WRONG, ids=lambda value: str(value)[:60])
def test_problems_name_the_ingredient(edits: dict, expected: list[str]):
    found = problems(**designed("factorial", **edits))
    for sentence in expected:
        assert any(problem.startswith(sentence) for problem in found), found


def test_a_problem_across_sections_names_the_ingredient_that_causes_it():
    wide = {"wide": {"rl": {"num_generations": 7}}, **INGREDIENTS}
    (problem,) = problems(**designed("factorial", ingredients={key: wide[key] for key in ("wide", "kl")}))
    assert problem.startswith("ingredients.wide.rl.per_device_train_batch_size: 128 x steps_per_generation 1")


def test_names_that_read_like_several_ingredients_are_refused():
    odd = {"kl": {"rl": {"beta": 0.1}}, "kl_and_more": {"rl": {"epsilon": 0.1}}}
    assert problems(**designed("factorial", ingredients=odd)) == [
        "ingredients.kl_and_more: reads like an arm that has 'kl'; rename it without `_and_`"
    ]


@pytest.mark.parametrize(
    ("generators", "expected"),
    [
        ({"kl": ["formt"]}, "generators.kl.0: got the text 'formt', expected one of format, entropy; did you mean"),
        ({"kk": ["format"]}, "generators.kk: got the text 'kk', expected one of format, kl, entropy"),
        ({"kl": ["format"]}, "generators: every arm would have both or neither of 'format' and 'kl'"),
        ({"kl": []}, "generators: no arm would have 'kl'"),
        ({"kl": ["entropy"], "format": ["entropy"]}, "generators: every arm would have both or neither of"),
    ],
)
def test_generators_that_confuse_ingredients_are_refused(generators: dict, expected: str):
    found = problems(**designed("fractional", generators=generators))
    assert found[0].startswith(expected), found


def test_too_few_ingredients_for_a_fraction():
    assert problems(**designed("fractional", "format kl")) == [
        "ingredients: design fractional has 2 of them, expected 3 to 10"
    ]


def test_the_written_content_is_left_as_it_was():
    written = content(**designed("leave_one_out", "entropy scaling"))
    made, found = design_arms(written)
    assert found == []
    assert written == content(**designed("leave_one_out", "entropy scaling"))
    assert list(made["arms"]) == ["all", "scaling", "entropy"]


def test_a_missing_baseline_is_said_as_ever():
    assert problems(**designed("factorial", baseline=GONE)) == [
        "baseline: missing; expected: The arm that the others are compared with"
    ]

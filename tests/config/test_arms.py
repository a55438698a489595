"""Arms are written out in full: `from` chains, deep merges, removals; what is wrong is reported where it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.studies import GONE, content, problems, study

VARY_ALL = ["model", "sft", "rl", "rewards", "credit"]


def arms(**written: dict) -> dict:
    """The edit that replaces the study's arms by `base` and these."""
    return {"arms": {"base": {}, **written}}


def test_a_chain_of_arms_is_laid_over_the_shared_sections_from_the_outermost_inwards():
    middle = {"rl": {"beta": 0.1, "epsilon": 0.3}, "varies": ["rl"]}
    outer = {"from": "middle", "rl": {"epsilon": 0.4, "delta": 2.0}, "varies": ["rl"]}
    recipe = study(**arms(outer=outer, middle=middle)).arms["outer"].recipe
    # beta from the middle, epsilon from the outer over the middle's 0.3, delta its own, max_steps from the study.
    assert (recipe.rl.beta, recipe.rl.epsilon, recipe.rl.delta, recipe.rl.max_steps) == (0.1, 0.4, 2.0, 60)


def test_label_colour_and_varies_are_an_arms_own():
    middle = {"label": "Middle", "color": "#123456", "rl": {"beta": 0.1}, "varies": ["rl.beta"]}
    outer = {"from": "middle", "rl": {"epsilon": 0.4}, "varies": ["rl"]}
    arm = study(**arms(middle=middle, outer=outer)).arms["outer"]
    assert (arm.label, arm.color, arm.varies) == ("outer", None, ("rl",))


def test_null_removes_the_warm_start_and_a_reward():
    arm = study(**arms(other={"sft": None, "rewards": {"soft_overlong": None}, "varies": VARY_ALL[1:4:2]})).arms[
        "other"
    ]
    assert arm.recipe.sft is None
    assert list(arm.recipe.rewards) == ["choice_accuracy", "think_answer_format"]


def test_a_removed_warm_start_comes_back_only_when_it_is_written_whole():
    without = {"sft": None, "varies": ["sft"]}
    again = {"from": "without", "sft": {"max_steps": 3}, "varies": ["sft"]}
    assert problems(**arms(without=without, again=again)) == [
        "arms.again.sft.learning_rate: missing; expected: Peak learning rate of AdamW",
        "arms.again.sft.per_device_train_batch_size: missing; expected: "
        "Samples (for RL: completions) per device and micro-batch",
    ]


def test_another_kind_replaces_a_section_whole():
    arm = study(**arms(other={"model": {"kind": "hub", "name": "x/y-1B"}, "varies": ["model"]})).arms["other"]
    assert arm.recipe.model.kind == "hub"


def test_credit_is_replaced_whole_and_options_are_merged():
    rewards = {"soft_overlong": {"options": {"cache": 2}}}
    arm = study(**arms(other={"rewards": rewards, "varies": ["rewards"]})).arms["other"]
    assert arm.recipe.rewards["soft_overlong"].options == {"max_completion_length": 16, "cache": 2}
    assert arm.recipe.rewards["soft_overlong"].weight == 0.0


CHAINS = [
    ({"a": {"from": "bse"}}, ["arms.a.from: got the text 'bse', expected base; did you mean 'base'?"]),
    ({"a": {"from": "a"}}, ["arms.a.from: goes round in a circle: a from a"]),
    (
        {"a": {"from": "c"}, "b": {"from": "a"}, "c": {"from": "b"}},
        ["arms.a.from: goes round in a circle: a from c from b from a"],
    ),
    ({"a": {"from": "b"}, "b": {"from": "b"}}, ["arms.b.from: goes round in a circle: b from b"]),
    # Found once, at the arm that is wrong, though another arm starts from it.
    ({"a": {"from": "zzz"}, "b": {"from": "a"}}, ["arms.a.from: got the text 'zzz', expected one of base, b"]),
]


@pytest.mark.parametrize(("written", "expected"), CHAINS)
def test_circles_and_unknown_arms(written: dict, expected: list[str]):
    assert problems(**arms(**written)) == expected


def test_an_only_arm_cannot_start_from_another():
    assert problems(arms={"base": {"from": "other"}}) == [
        "arms.base.from: got the text 'other', but there is no other arm"
    ]


def test_a_problem_is_reported_where_it_is_written_and_not_where_it_is_inherited():
    middle = {"rl": {"beta": -1}}
    outer = {"from": "middle", "rl": {"epsilon": -2}}
    assert problems(rl__max_steps=0, **arms(outer=outer, middle=middle)) == [
        "rl.max_steps: got the number 0, expected a number of at least 1",
        "arms.outer.rl.epsilon: got the number -2, expected a number above 0",
        "arms.middle.rl.beta: got the number -1, expected a number of at least 0",
    ]


def test_a_shared_section_that_is_wrong_as_a_whole_is_not_blamed_on_the_arms():
    assert problems(rl=3, **arms(other={"rl": {"beta": 0.1}})) == ["rl: got the number 3, expected a mapping"]
    assert problems(rl=GONE, **arms(other={"rl": {"beta": 0.1}})) == [
        "rl: missing; expected: The reinforcement-learning stage"
    ]


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_in_which_arms_are_written_does_not_matter(order: list[str]):
    written = {
        "a": {"rl": {"beta": 0.1}, "varies": ["rl"]},
        "b": {"from": "a", "rl": {"beta": 0.2}, "varies": ["rl"]},
        "c": {"from": "b", "rl": {"epsilon": 0.1}, "varies": ["rl"]},
        "d": {"from": "c", "rl": {"delta": 2.0}, "varies": ["rl"]},
    }
    shuffled = study(**arms(**{name: written[name] for name in order}))
    assert shuffled.arms["d"].recipe.rl.beta == 0.2
    assert {name: arm.recipe for name, arm in shuffled.arms.items()} == {
        name: arm.recipe for name, arm in study(**arms(**written)).arms.items()
    }


def test_the_written_content_is_left_as_it_was():
    before = content()
    study()
    assert content() == before

"""Differences between recipes, by hand."""

from hypothesis import given
from hypothesis import strategies as st

from rlassay.config.confounds import Difference, differences, idle, recipe_differences, undeclared
from tests.config.studies import study


def recipe(**arm: object):
    """The recipe of an arm with these differences."""
    return study(arms={"base": {}, "arm": {"varies": list(arm), **arm}}).arms["arm"].recipe


BASE = study().arms["base"].recipe


def test_each_differing_value_is_one_path():
    found = differences(study())
    assert found["base"] == []
    assert found["dr_grpo"] == [
        Difference(path="rl.loss_type", baseline="dapo", arm="dr_grpo"),
        Difference(path="rl.scale_rewards", baseline="group", arm="none"),
    ]
    assert found["format_only"] == [Difference(path="rewards.choice_accuracy.weight", baseline=1.0, arm=0.0)]


def test_a_section_or_a_reward_that_only_one_has_is_one_path():
    without = recipe(sft=None, rewards={"soft_overlong": None})
    assert [difference.path for difference in recipe_differences(BASE, without)] == ["sft", "rewards.soft_overlong"]
    removed = recipe_differences(BASE, without)[1]
    assert removed.baseline["options"] == {"max_completion_length": 16, "cache": 4}
    assert removed.arm is None


def test_sections_of_another_kind_are_compared_whole():
    (difference,) = recipe_differences(BASE, recipe(model={"kind": "hub", "name": "x"}))
    assert (difference.path, difference.baseline["kind"], difference.arm["kind"]) == ("model", "tiny_vlm", "hub")


def test_options_are_compared_one_by_one():
    (difference,) = recipe_differences(BASE, recipe(rewards={"soft_overlong": {"options": {"cache": 2}}}))
    assert difference == Difference(path="rewards.soft_overlong.options.cache", baseline=4, arm=2)


def test_a_path_covers_what_lies_below_it():
    found = [Difference(path=path, baseline=0, arm=1) for path in ("rl.beta", "rl.beta_two", "sft")]
    assert [difference.path for difference in undeclared(found, ["rl.beta"])] == ["rl.beta_two", "sft"]
    assert undeclared(found, ["rl", "sft"]) == []
    assert idle(found, ["rl", "sft.seed", "rl.epsilon", "sft"]) == ["sft.seed", "rl.epsilon"]


@given(st.dictionaries(st.sampled_from(["beta", "epsilon", "temperature"]), st.floats(0.25, 0.75), max_size=3))
def test_differences_are_exactly_the_edited_keys_and_change_sides_when_swapped(edits: dict[str, float]):
    other = BASE.model_copy(update={"rl": BASE.rl.model_copy(update=edits)})
    forth, back = recipe_differences(BASE, other), recipe_differences(other, BASE)
    assert {difference.path for difference in forth} == {
        f"rl.{key}" for key in edits if edits[key] != getattr(BASE.rl, key)
    }
    assert [(d.path, d.baseline, d.arm) for d in forth] == [(d.path, d.arm, d.baseline) for d in back]

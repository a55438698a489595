"""Fingerprints change with what decides a result, and with nothing else."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.config import Study
from rlassay.config.fingerprints import (
    data_id,
    evaluation_id,
    model_id,
    recipe_id,
    rl_id,
    score_id,
    sft_id,
    sft_policy,
)
from tests.config.studies import GONE, study

BEFORE = study()


def ids(study: Study, arm: str = "base", seed: int = 1) -> dict[str, str]:
    """All fingerprints of one run, by name."""
    recipe = study.arms[arm].recipe
    return {
        "data": data_id(study),
        "model": model_id(study, recipe),
        "sft": sft_id(study, recipe),
        "rl": rl_id(study, arm, seed),
        "evaluation": evaluation_id(study, recipe),
    }


EVERY = {"data", "model", "sft", "rl", "evaluation"}
EDITS = [
    # What decides no result.
    ({"title": "x", "question": "y", "gpus": 1, "family": ["dr_grpo"]}, set()),
    ({"arms__base__label": "x", "arms__base__color": "#123456"}, set()),
    ({"primary__metric": "parse_failure"}, set()),
    ({"seeds": [1, 7]}, set()),
    ({"arms__new": {"rl": {"beta": 0.1}, "varies": ["rl"]}}, set()),
    ({"arms__dr_grpo__rl__beta": 0.1, "arms__dr_grpo__varies": ["rl"]}, set()),
    ({"rewards__choice_accuracy__timeout": 2.0, "rewards__choice_accuracy__max_failures": 0.5}, set()),
    # What decides some.
    ({"processes": 2}, {"sft", "rl"}),
    ({"rl__max_steps": 61}, {"rl"}),
    ({"rl__save_steps": 30}, {"rl"}),
    ({"arms__base__rl": {"beta": 0.1}, "arms__dr_grpo__rl__beta": 0.1, "arms__dr_grpo__varies": ["rl"]}, {"rl"}),
    ({"rewards__choice_accuracy__weight": 2.0}, {"rl"}),
    ({"rewards__soft_overlong__options__cache": 2}, {"rl"}),
    ({"rewards__soft_overlong": GONE}, {"rl"}),
    ({"sft__max_steps": 1201}, {"sft", "rl"}),
    ({"sft__per_seed": True}, {"sft", "rl"}),
    ({"model__width": 64}, {"model", "sft", "rl"}),
    ({"model__seed": 1}, {"model", "sft", "rl"}),
    ({"evaluation__num_samples": 4}, {"evaluation"}),
    ({"evaluation__seed": 4}, {"evaluation"}),
    ({"evaluation__every": 10}, set()),
    ({"evaluation__every": 10, "evaluation__curve_set": "test"}, set()),
    ({"data__seed": 3}, EVERY),
    ({"data__splits__test": 300}, EVERY),
]


@pytest.mark.parametrize(
    ("edits", "changed"), EDITS, ids=lambda value: str(sorted(value) if isinstance(value, set) else value)[:60]
)
def test_an_edit_changes_the_fingerprints_of_what_it_decides(edits: dict, changed: set[str]):
    after = ids(study(**edits))
    assert {name for name, value in ids(BEFORE).items() if after[name] != value} == changed


def test_the_strategy_enters_what_it_trains_and_no_result_without_it():
    shared = ids(study(processes=2))
    assert ids(study(processes=2, strategy="ddp")) == shared
    divided = ids(study(processes=2, strategy="fsdp2"))
    assert {name for name, value in shared.items() if divided[name] != value} == {"sft", "rl"}


def test_prompts_that_state_the_format_make_another_evaluation():
    arms = study(arms={"base": {}, "bare": {"sft": None, "varies": ["sft"]}}).arms
    assert evaluation_id(BEFORE, arms["bare"].recipe) != evaluation_id(BEFORE, arms["base"].recipe)


def test_a_fingerprint_is_eight_hex_digits_and_the_same_every_time():
    assert all(re.fullmatch("[0-9a-f]{8}", value) for value in ids(BEFORE).values())
    assert ids(BEFORE) == ids(study())


def test_values_written_in_another_order_or_by_default_are_the_same():
    rewards = {"rewards": {"soft_overlong": {"weight": 0, "options": {"cache": 4, "max_completion_length": 16}}}}
    reordered = study(arms={"base": {"rl": {"top_p": 1}, **rewards}, "x": {"rl": {"beta": 1}, "varies": ["rl"]}})
    assert ids(reordered) == ids(BEFORE)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=5, unique=True))
def test_every_seed_has_an_rl_fingerprint_of_its_own(seeds: list[int]):
    assert len({rl_id(BEFORE, arm, seed) for arm in BEFORE.arms for seed in seeds}) == len(BEFORE.arms) * len(seeds)


def test_the_warm_start_is_shared_by_arms_and_seeds_unless_it_is_per_seed():
    shared = {sft_policy(BEFORE, arm.recipe, seed) for arm in BEFORE.arms.values() for seed in BEFORE.seeds}
    assert shared == {f"sft/{sft_id(BEFORE, BEFORE.arms['base'].recipe)}"}
    own = study(sft__per_seed=True)
    recipe = own.arms["base"].recipe
    assert [sft_policy(own, recipe, seed) for seed in (1, 2)] == [f"sft/{sft_id(own, recipe)}/seed{k}" for k in (1, 2)]


def test_an_arm_with_another_warm_start_shares_none():
    other = study(arms__dr_grpo__sft={"max_steps": 3}, arms__dr_grpo__varies=["rl", "sft"])
    starts = {name: sft_policy(other, arm.recipe, 1) for name, arm in other.arms.items()}
    assert starts["dr_grpo"] != starts["base"] == starts["accuracy_only"]


def test_an_arm_without_a_warm_start():
    cold = study(arms__dr_grpo__sft=None, arms__dr_grpo__varies=["rl", "sft"])
    recipe = cold.arms["dr_grpo"].recipe
    assert sft_policy(cold, recipe, 1) is None
    with pytest.raises(ValueError, match="no sft section"):
        sft_id(cold, recipe)
    assert rl_id(cold, "dr_grpo", 1) != rl_id(BEFORE, "dr_grpo", 1)
    assert model_id(cold, recipe) == model_id(BEFORE, BEFORE.arms["base"].recipe)


def test_a_hub_model_before_training_depends_on_neither_data_nor_adapters():
    hub = {"kind": "hub", "name": "x/y-1B"}
    plain = study(model=hub)
    before = model_id(plain, plain.arms["base"].recipe)
    for edits in ({"model": {**hub, "lora": {"r": 4}}}, {"model": hub, "data__seed": 5}):
        after = study(**edits)
        assert model_id(after, after.arms["base"].recipe) == before
        assert rl_id(after, "base", 1) != rl_id(plain, "base", 1)
    pinned = study(model={**hub, "revision": "abc"})
    assert model_id(pinned, pinned.arms["base"].recipe) != before


def test_recipes_are_equal_when_all_their_values_are():
    names = ("base", "accuracy_only")
    assert len({recipe_id(BEFORE.arms[name].recipe) for name in names}) == 2
    assert recipe_id(study().arms["base"].recipe) == recipe_id(BEFORE.arms["base"].recipe)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file with a reward of the user's own."""
    file = tmp_path / "mine.py"
    file.write_text("def reward(item):\n    return 1.0\n")
    return file


def with_own(file: Path) -> Study:
    """The built-in study with one arm that uses it."""
    custom = {"custom": {"weight": 1.0, "options": {"path": f"{file}:reward"}}}
    return study(arms__own={"rewards": custom, "varies": ["rewards"]})


def identified(study: Study) -> dict[str, str]:
    """All fingerprints that an edit of a reward could change."""
    arms = {f"rl/{name}": rl_id(study, name, 1) for name in study.arms}
    return arms | {f"{name} of own": value for name, value in ids(study, "own").items()} | {"score": score_id(study)}


def test_an_edit_of_the_users_own_reward_concerns_the_arms_that_use_it_and_the_scores(own: Path):
    before = identified(with_own(own))
    own.write_text("def reward(item):\n    return 2.0\n")
    after = identified(with_own(own))
    assert {name for name in before if after[name] != before[name]} == {"rl/own", "rl of own", "score"}


def test_a_comment_in_it_concerns_nothing(own: Path):
    before = identified(with_own(own))
    own.write_text("# Why\n" + own.read_text())
    assert identified(with_own(own)) == before


def test_a_file_that_it_imports_belongs_to_it(own: Path):
    helper = own.with_name("helper.py")
    helper.write_text("VALUE = 1.0\n")
    own.write_text("from helper import VALUE\n\ndef reward(item):\n    return VALUE\n")
    before = identified(with_own(own))
    helper.write_text("VALUE = 2.0\n")
    after = identified(with_own(own))
    assert {name for name in before if after[name] != before[name]} == {"rl/own", "rl of own", "score"}
    own.with_name("unrelated.py").write_text("")
    assert identified(with_own(own)) == after


def test_rewards_of_ones_own_under_any_name_are_identified_by_file_and_options(own: Path):
    mine = {"weight": 1.0, "kind": "custom", "path": f"{own}:reward"}
    edits = {"arms__own": {"rewards": {"first": mine, "second": mine}, "varies": ["rewards"]}}
    before = identified(study(**edits))
    own.write_text("def reward(item, scale=1):\n    return 2.0 * scale\n")
    edited = identified(study(**edits))
    assert {name for name in before if edited[name] != before[name]} == {"rl/own", "rl of own", "score"}
    edits["arms__own"]["rewards"]["second"] = mine | {"options": {"scale": 2}}
    after = identified(study(**edits))
    assert {name for name in after if after[name] != edited[name]} == {"rl/own", "rl of own", "score"}


def test_scores_follow_options_and_not_weights():
    before = score_id(BEFORE)
    assert score_id(study(rewards__choice_accuracy__weight=2.0)) == before
    assert score_id(study(rewards__soft_overlong__options__cache=2)) != before
    assert score_id(study(rewards__soft_overlong=GONE)) != before

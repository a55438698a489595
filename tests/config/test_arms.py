"""Arms written out in full, the differences between their recipes, and scales laid over a study.

Errors are reported at the place in the file where they are written.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.config import Study, StudyError, load_study
from rlassay.config.arms import (
    RecipeDifference,
    differences,
    fit_scale,
    idle,
    lay_scale,
    recipe_differences,
    undeclared,
    unknown_sources,
)
from rlassay.config.fingerprints import equal_arms
from rlassay.config.load import read_yaml, scale_study
from rlassay.report.findings.design import build_design
from tests.config.studies import GONE, content, problems, study, write

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
    ({"a": {"from": "a"}}, ["arms.a.from: runs in a circle: a from a"]),
    (
        {"a": {"from": "c"}, "b": {"from": "a"}, "c": {"from": "b"}},
        ["arms.a.from: runs in a circle: a from c from b from a"],
    ),
    ({"a": {"from": "b"}, "b": {"from": "b"}}, ["arms.b.from: runs in a circle: b from b"]),
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


def recipe(**arm: object):
    """The recipe of an arm with these differences."""
    return study(arms={"base": {}, "arm": {"varies": list(arm), **arm}}).arms["arm"].recipe


BASE = study().arms["base"].recipe


def test_each_differing_value_is_one_path():
    found = differences(study())
    assert found["base"] == []
    assert found["dr_grpo"] == [
        RecipeDifference(path="rl.loss_type", baseline="dapo", arm="dr_grpo"),
        RecipeDifference(path="rl.scale_rewards", baseline="group", arm="none"),
    ]
    assert found["format_only"] == [RecipeDifference(path="rewards.choice_accuracy.weight", baseline=1.0, arm=0.0)]


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
    assert difference == RecipeDifference(path="rewards.soft_overlong.options.cache", baseline=4, arm=2)


def test_a_path_covers_what_lies_below_it():
    found = [RecipeDifference(path=path, baseline=0, arm=1) for path in ("rl.beta", "rl.beta_two", "sft")]
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


TINY = Path("config/scales/tiny.yaml")
HUB = {"kind": "hub", "name": "openai/gsm8k", "revision": "main", "config": "main"}
SOURCES = {
    "gsm8k": {"kind": "gsm8k", "origin": HUB, "splits": {"train": None, "test": None, "more": None}},
    "aokvqa": {"kind": "aokvqa", "origin": HUB, "question_ids": "ids.txt"},
    "table": {"kind": "table", "origin": {"kind": "parquet"}, "preset": "image_problem_solution"},
    "summarization": {"kind": "summarization", "origin": {"kind": "json"}},
    "docstrings": {"kind": "docstrings", "max_words": 50},
    "headlines": {"kind": "headlines"},
    "jsonl_prompts": {"kind": "jsonl_prompts", "folder": "/nowhere"},
    "conversations": {"kind": "conversations", "folder": "/nowhere"},
    "jsonl": {"kind": "jsonl", "folder": "/nowhere"},
    "moving_digits": {"kind": "moving_digits", "guess_share": 0.5},
}
TINY_SOURCES = {
    "gsm8k": ("gsm8k", "tiny_lm"),
    "aokvqa": ("aokvqa", "tiny_vlm"),
    "summarization": ("docstrings", "tiny_lm"),
    "docstrings": ("docstrings", "tiny_lm"),
    "moving_digits": ("moving_digits", "tiny_vlm"),
    "conversations": ("moving_digits", "tiny_vlm"),
    "headlines": ("headlines", "tiny_lm"),
}


def tiny(**edits: object) -> Study:
    """The built-in study with edits, made tiny."""
    return scale_study(content(**edits), TINY)


@pytest.mark.parametrize(("sft", "merged"), [({"x": 1, "y": 2}, {"x": 1, "y": 9}), (None, None)])
def test_a_scale_reaches_a_warm_start_only_where_there_is_one(sft: object, merged: object):
    assert lay_scale({"sft": sft, "rl": {"z": 1}}, {"sft": {"y": 9}, "rl": {"z": 3}}) == {"sft": merged, "rl": {"z": 3}}
    assert lay_scale({"rl": {"z": 1}}, {"sft": {"y": 9}}) == {"rl": {"z": 1}}


def test_a_scale_reaches_a_reward_only_where_there_is_one():
    sections = {"rewards": {"a": {"weight": 2, "options": {"x": 1, "y": 2}}}}
    over = {"rewards": {"a": {"options": {"y": 9}}, "b": {"options": {"y": 9}}}}
    assert lay_scale(sections, over) == {"rewards": {"a": {"weight": 2, "options": {"x": 1, "y": 9}}}}


@pytest.mark.parametrize("over", [{"target_modules": "all-linear"}, None])
def test_adapters_stay_where_the_model_is_replaced_by_one_of_another_kind(over: dict | None):
    scale = {"model": {"kind": "tiny_lm"}, **({} if over is None else {"lora": over})}
    adapted = {"model": {"kind": "hub", "name": "x", "lora": {"r": 4, "target_modules": ["q_proj"]}}}
    kept = {"lora": {"r": 4, "target_modules": "all-linear"}} if over else {}
    assert lay_scale(adapted, scale) == {"model": {"kind": "tiny_lm", **kept}}
    assert lay_scale({"model": {"kind": "hub", "name": "x"}}, scale) == {"model": {"kind": "tiny_lm"}}
    same = {"model": {"kind": "tiny_lm", "lora": {"target_modules": ["q_proj"]}}}
    assert lay_scale(same, scale) == same


def test_a_signal_setting_that_is_null_stays_null_at_a_scale():
    over = {"signals": {"perception": {"block": 4}}}
    whole_frames = {"signals": {"perception": {"block": None, "share": 0.5}}}
    assert lay_scale(whole_frames, over) == whole_frames
    smaller = {"signals": {"perception": {"block": 4, "share": 0.5}}}
    assert lay_scale({"signals": {"perception": {"block": 14, "share": 0.5}}}, over) == smaller
    assert lay_scale({}, over) == over


def test_arms_that_a_scale_makes_equal_are_known():
    video = load_study("s3_video", "tiny")  # the built-in model takes clips as frames only
    assert equal_arms(video) == {"frames": "both"}
    assert "At this scale 'frames as images' trains as 'action set + format' does" in build_design(video).sentence
    assert equal_arms(load_study("digits", "tiny")) == {}


def test_a_ceiling_lowers_a_number_and_leaves_what_is_absent_absent():
    over = {"rl": {"max_steps": 4}, "at_most": {"rl": {"train_on": 2, "num_iterations": 2}, "sft": {"seed": 1}}}
    lowered = {"rl": {"max_steps": 4, "train_on": 2, "num_iterations": 1}, "sft": None}
    assert lay_scale({"rl": {"train_on": 5, "num_iterations": 1}, "sft": None}, over) == lowered
    assert lay_scale({"rl": {"train_on": None}}, over) == {"rl": {"max_steps": 4, "train_on": None}}


def test_tiny_trains_on_part_of_its_smaller_groups():
    small = load_study("sampling", TINY)
    assert small.arms["half"].recipe.rl.train_on == 2 < small.arms["half"].recipe.rl.num_generations
    assert small.arms["all"].recipe.rl.train_on is None
    assert {arm.recipe.rl.num_iterations for arm in load_study("losses", TINY).arms.values()} == {2}


def test_splits_are_replaced_and_not_merged():
    sections = {"data": {"seed": 7, "splits": {"train": 500, "more": None}}}
    over = {"data": {"splits": {"train": 5}}}
    assert lay_scale(sections, over) == {"data": {"seed": 7, "splits": {"train": 5}}}
    assert sections["data"]["splits"] == {"train": 500, "more": None}


SCALE = {
    "seeds": [1],
    "data": {"kind": "digits", "seed": 3},
    "sft": {"max_steps": 2},
    "rl": {"max_steps": 4, "beta": 0.1},
    "by_source": {"gsm8k": {"data": {"splits": {"train": 9}}, "rl": {"max_steps": 6}}},
}


@pytest.mark.parametrize(
    ("kind", "data", "max_steps"), [("gsm8k", {"splits": {"train": 9}}, 6), ("table", {"kind": "digits", "seed": 3}, 4)]
)
def test_the_part_for_a_source_is_laid_over_the_rest_and_replaces_its_data(kind: str, data: dict, max_steps: int):
    _, overlay = fit_scale({"data": {"kind": kind}, "arms": {}}, SCALE)
    assert overlay == {"seeds": [1], "data": data, "sft": {"max_steps": 2}, "rl": {"max_steps": max_steps, "beta": 0.1}}


def test_the_part_for_encoder_decoders_is_laid_over_all_others():
    scale = SCALE | {"seq2seq": {"model": {"kind": "tiny_seq2seq"}}}
    study = {"data": {"kind": "gsm8k"}, "model": {"kind": "hub", "architecture": "seq2seq"}, "arms": {}}
    assert fit_scale(study, scale)[1]["model"] == {"kind": "tiny_seq2seq"}
    assert "model" not in fit_scale({**study, "model": {"kind": "hub"}}, scale)[1]


@pytest.mark.parametrize(
    ("adds", "written", "added"),
    [
        (True, {"arms": {"a": {}, "b": {"rl": {}}}}, True),
        (False, {"arms": {"a": {}}}, False),
        (True, {"arms": {"a": {}}, "sft": {"max_steps": 9}}, False),
        # An arm tests the warm start: the others go without one at every scale.
        (True, {"arms": {"a": {}, "b": {"sft": {"max_steps": 9}}}}, False),
    ],
)
def test_a_warm_start_is_added_where_the_whole_study_has_none(adds: bool, written: dict, added: bool):
    written = {"data": {"kind": "table"}, **written}
    fitted, _ = fit_scale(written, {**SCALE, "adds_warm_start": adds})
    assert fitted == ({**written, "sft": {"max_steps": 2}} if added else written)


def test_a_source_that_no_study_can_have_is_named(tmp_path: Path):
    assert unknown_sources(SCALE) == []
    path = write(tmp_path / "odd.yaml", {"by_source": {"gsm8": {"rl": {"max_steps": 1}}}})
    with pytest.raises(StudyError, match=r"by_source.gsm8: unknown kind of data; .* did you mean 'gsm8k'\?"):
        load_study("digits", path)


@pytest.mark.parametrize("source", SOURCES)
def test_tiny_needs_no_download_whatever_the_source(source: str):
    small = tiny(data=SOURCES[source], sft=GONE)
    kind, model = TINY_SOURCES.get(source, ("digits", "tiny_vlm"))
    assert small.data.kind == kind
    assert small.data.splits == {"sft": 256, "train": 64, "test": 24}
    assert getattr(getattr(small.data, "origin", None), "kind", "builtin") == "builtin"
    assert getattr(small.data, "question_ids", None) is None
    assert small.data.max_prompt_length is None
    for arm in small.arms.values():
        assert (arm.recipe.model.kind, arm.recipe.sft is not None) == (model, True)


def test_tiny_shortens_what_a_length_reward_pays_for():
    longer = {"weight": 1.0, "options": {"max_completion_length": 384, "cache": 50}}
    small = tiny(
        rewards__soft_overlong=longer,
        rewards__accuracy_conditioned_length={**longer, "options": {"max_completion_length": 384}},
    )
    rl = small.arms["base"].recipe.rl
    options = small.rewards["soft_overlong"].options
    assert options["max_completion_length"] == rl.max_completion_length == small.evaluation.max_completion_length
    assert options["cache"] < options["max_completion_length"]
    assert small.rewards["accuracy_conditioned_length"].options == {"max_completion_length": rl.max_completion_length}


def test_every_part_of_tiny_for_a_source_is_tested_here():
    assert set(read_yaml(TINY)["by_source"]) == set(TINY_SOURCES)


def test_tiny_averages_as_many_checkpoints_as_it_has_and_only_where_the_study_averages():
    assert tiny(evaluation__every=5, primary__over="last_9").primary.over == "last_2"
    assert tiny(evaluation__every=5).primary.over is None

"""Rules of token credit, each with the sentence a user reads."""

from typing import Any

import pytest

from tests.config.studies import problems, study

PERCEPTION = {"kind": "perception_filter"}
GSM8K = {"kind": "gsm8k", "origin": {"kind": "builtin"}, "splits": {"sft": 6000, "train": 2000, "test": 400}}
TABLE = GSM8K | {"kind": "table"}

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"credit": [PERCEPTION, {"kind": "uniform"}, PERCEPTION]},
        "credit.2: perception_filter stands in the list twice; expected one of each kind",
    ),
    (
        {"credit": [{"kind": "shuffled_weights"}, PERCEPTION]},
        "credit.0: shuffled_weights has nothing to shuffle; expected a filter or attention_weights before it",
    ),
    (
        {"credit": [{"kind": "trajectory_scaling"}, {"kind": "shuffled_weights"}]},
        "credit.1: shuffled_weights has nothing to shuffle; expected a filter or attention_weights before it",
    ),
    (
        {"credit": [{"kind": "random_filter"}, {"kind": "shuffled_weights"}]},
        "credit: random_filter and shuffled_weights go by the same random draws, and a random choice needs no "
        "shuffling; leave one out",
    ),
    (
        {"credit": [{"kind": "entropy_filter"}, PERCEPTION], "data": GSM8K},
        "credit.1: perception_filter needs an image, and rows of data.kind gsm8k have none; leave it out",
    ),
    (
        {"credit": [{"kind": "attention_weights"}], "data": TABLE},
        "credit.0: attention_weights needs an image, and rows of data.kind table have none; leave it out",
    ),
    (
        {"credit": [{"kind": "trajectory_scaling"}], "model": {"kind": "tiny_lm"}},
        "credit.0: trajectory_scaling needs an image, and model.kind tiny_lm sees none; leave it out",
    ),
    (
        {"credit_denominator": "selected"},
        "arms.dr_grpo.credit_denominator: selected, but rl.loss_type dr_grpo divides by no number of tokens; expected "
        "all, or another loss_type",
    ),
    (
        {"credit": [{"kind": "entropy_filter", "fraction": 0.0}]},
        "credit.0.fraction: got the number 0.0, expected a number above 0",
    ),
    (
        {"signals": {"attention": {"dominance": "last"}}},
        "signals.attention.dominance: got the text 'last', expected one of early, middle, late, all; "
        "did you mean 'late'? or a whole number",
    ),
    (
        {"signals": {"attention": {"dominance": 0}}},
        "signals.attention.dominance: got the number 0, expected one of early, middle, late, all or a number "
        "of at least 1",
    ),
    (
        {"signals": {"perception": {"mode": "gray"}}},
        "signals.perception.mode: got the text 'gray', expected one of black, noise, blur, grey; did you mean 'grey'?",
    ),
]


@pytest.mark.parametrize(("edits", "expected"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_credit_that_contradicts_itself_or_the_study(edits: dict, expected: str):
    assert [problem for problem in problems(**edits) if "credit" in problem or "signals" in problem] == [expected]


def test_controls_and_what_they_control_are_accepted():
    everything = [{"kind": kind} for kind in ("attention_weights", "entropy_filter", "perception_filter")]
    everything += [{"kind": "shuffled_weights"}, {"kind": "trajectory_scaling", "min_scale": 0.9}]
    assert len(study(credit=everything).arms["base"].recipe.credit) == 5
    with_images = TABLE | {"columns": {"images": "image"}}
    assert study(credit=[{"kind": "random_filter"}], data=GSM8K).data.kind == "gsm8k"
    assert study(credit=[PERCEPTION], data=with_images).data.kind == "table"


def test_an_arm_may_differ_in_credit_denominator_and_signals():
    arm = {
        "from": "base",
        "varies": ["credit", "credit_denominator", "signals.perception.block"],
        "credit": [PERCEPTION],
        "credit_denominator": "selected",
        "signals": {"perception": {"block": 4}},
    }
    recipe = study(arms__perception=arm).arms["perception"].recipe
    assert recipe.credit_denominator == "selected"
    assert (recipe.signals.perception.block, recipe.signals.perception.probability) == (4, 0.5)
    undeclared = arm | {"varies": ["credit", "credit_denominator"]}
    (confound,) = problems(arms__perception=undeclared)
    assert "signals.perception.block is 4 here and 14 in the baseline" in confound

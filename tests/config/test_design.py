"""What a study compares: named arms exist, no two are the same, differences are declared and declarations differ."""

import pytest

from tests.config.studies import problems, study

ARMS = "one of base, accuracy_only, format_only, dr_grpo"

UNSOUND = [
    ({"baseline": "bse"}, [f"baseline: got the text 'bse', expected an arm: {ARMS}; did you mean 'base'?"]),
    (
        {"family": ["accuracy_only", "dr_gpo"]},
        [f"family.1: got the text 'dr_gpo', expected an arm: {ARMS}; did you mean 'dr_grpo'?"],
    ),
    ({"family": ["base"]}, ["family.0: 'base' is the baseline, which is not compared with itself; leave it out"]),
    ({"family": ["dr_grpo", "dr_grpo"]}, ["family.1: 'dr_grpo' stands in the list twice"]),
    (
        {"arms__dr_grpo__label": "accuracy only"},
        ["arms.dr_grpo.label: 'accuracy only' is also the label of 'accuracy_only'; expected another text"],
    ),
    (
        {"arms__copy": {"from": "dr_grpo", "varies": ["rl"]}},
        ["arms.copy: equal to arms.dr_grpo and would train the same weights; change or remove one"],
    ),
    # Equal once the defaults are written out.
    (
        {"arms__copy": {"rl": {"top_p": 1.0}}},
        ["arms.copy: equal to arms.base and would train the same weights; change or remove one"],
    ),
    (
        {"arms__dr_grpo__varies": ["rl.scale_rewards"]},
        [
            "arms.dr_grpo: rl.loss_type is 'dr_grpo' here and 'dapo' in the baseline 'base', a confound; add "
            "rl.loss_type to `varies` if it is what this arm tests, or take the difference out"
        ],
    ),
    (
        {"arms__accuracy_only__sft": None},
        [
            "arms.accuracy_only: sft is nothing (null) here and a mapping in the baseline 'base', a confound; add sft "
            "to `varies` if it is what this arm tests, or take the difference out"
        ],
    ),
    (
        {"arms__dr_grpo__varies": ["rl", "rl.loss_tpe"]},
        [
            "arms.dr_grpo.varies: nothing below 'rl.loss_tpe' differs from the baseline 'base'; this arm differs in "
            "rl.loss_type, rl.scale_rewards; did you mean 'rl.loss_type'?"
        ],
    ),
    ({"arms__base__varies": ["rl"]}, ["arms.base.varies: nothing below 'rl' differs from the baseline 'base'"]),
]


@pytest.mark.parametrize(("edits", "expected"), UNSOUND, ids=lambda value: str(value)[:60])
def test_an_unsound_comparison_is_refused(edits: dict, expected: list[str]):
    assert problems(**edits) == expected


def test_a_declared_path_covers_everything_below_it_and_nothing_beside_it():
    study(arms__dr_grpo__varies=["rl"])
    assert len(problems(arms__dr_grpo__varies=["r"])) == 3  # two confounds and a declaration in which nothing differs


def test_the_family_is_all_arms_but_the_baseline_unless_it_is_written():
    assert study().family == ("accuracy_only", "format_only", "dr_grpo")
    assert study(baseline="dr_grpo", arms={"a": {"rl": {"beta": 0.1}, "varies": ["rl"]}, "dr_grpo": {}}).family == (
        "a",
    )
    assert study(family=["dr_grpo"]).family == ("dr_grpo",)


def test_one_arm_is_a_study():
    assert study(arms={"base": {}}).family == ()

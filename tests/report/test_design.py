"""The design table and the confound check."""

from rlassay.config.study import Study
from rlassay.report.design import build_design
from tests.report.synthetic import Size, synthetic_study


def _with(study: Study, arm: str, **changes: object) -> Study:
    return study.model_copy(update={"arms": study.arms | {arm: study.arms[arm].model_copy(update=changes)}})


def test_every_difference_is_a_row_with_the_value_of_every_arm():
    design = build_design(synthetic_study(Size()))
    rows = {row.key: row for row in design.rows}
    assert set(rows) == {
        "rewards.think_answer_format.weight",
        "rewards.choice_accuracy.weight",
        "rl.loss_type",
        "rl.scale_rewards",
    }
    assert rows["rl.loss_type"].values == {
        "base": '"dapo"',
        "accuracy_only": '"dapo"',
        "format_only": '"dapo"',
        "dr_grpo": '"dr_grpo"',
    }
    assert rows["rl.loss_type"].declared_by == ("dr_grpo",)
    assert design.sentence.startswith("Confound check passed")


def test_an_undeclared_difference_is_a_confound():
    study = _with(synthetic_study(Size()), "dr_grpo", varies=("rl.loss_type",))
    design = build_design(study)
    row = next(row for row in design.rows if row.key == "rl.scale_rewards")
    assert (row.declared_by, row.confounds) == ((), ("dr_grpo",))
    assert design.sentence == (
        "Confounded, differs from the baseline without declaring it: dr grpo in rl.scale_rewards."
    )


def test_a_section_above_a_difference_declares_it_and_null_is_a_value():
    study = synthetic_study(Size(arms=("base", "dr_grpo")))
    recipe = study.arms["dr_grpo"].recipe
    recipe = recipe.model_copy(update={"rl": recipe.rl.model_copy(update={"epsilon_high": 0.28})})
    design = build_design(_with(study, "dr_grpo", recipe=recipe, varies=("rl",)))
    row = next(row for row in design.rows if row.key == "rl.epsilon_high")
    assert row.values == {"base": "null", "dr_grpo": "0.28"}
    assert row.declared_by == ("dr_grpo",)


def test_an_arm_that_lacks_the_key_has_no_value():
    study = synthetic_study(Size(arms=("base", "dr_grpo")))
    recipe = study.arms["dr_grpo"].recipe
    fewer = {name: reward for name, reward in recipe.rewards.items() if name != "soft_overlong"}
    design = build_design(_with(study, "dr_grpo", recipe=recipe.model_copy(update={"rewards": fewer})))
    row = next(row for row in design.rows if row.key == "rewards.soft_overlong")
    assert set(row.values) == {"base"}
    assert row.confounds == ("dr_grpo",)


def test_one_arm_has_nothing_to_confound():
    design = build_design(synthetic_study(Size(arms=("base",))))
    assert (design.rows, design.sentence) == ((), "The study has one arm, so there is nothing to confound.")

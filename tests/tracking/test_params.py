"""Params that parallel coordinates can plot: the same keys on every run, numbers wherever they can be."""

from rlassay.config.credit import AttentionWeights, UniformCredit
from rlassay.config.policies import Policy, policies
from rlassay.config.study import Study
from rlassay.tracking.params import parent_params, run_params
from tests.tracking.folders import small_study


def of_stage(study: Study, stage: str) -> Policy:
    """The first policy of a stage."""
    return next(policy for policy in policies(study).values() if policy.stage == stage)


def test_every_run_of_a_study_has_the_same_keys() -> None:
    study = small_study(brevity=0.25)
    found = [set(run_params(study, policy)) for policy in policies(study).values()]
    found += [set(parent_params(study, policy)) for policy in policies(study).values()]
    assert len(found) == 8  # model, warm start, two arms; each as a run and as a parent
    assert all(keys == found[0] for keys in found)


def test_a_reward_that_an_arm_does_not_use_has_weight_0() -> None:
    study = small_study(brevity=0.25)
    weights = {
        folder: {key: value for key, value in run_params(study, policy).items() if key.startswith("reward.")}
        for folder, policy in policies(study).items()
    }
    assert weights["runs/base/seed1"] == {"reward.accuracy": "1.0", "reward.format": "0.5", "reward.brevity": "0.25"}
    assert weights["runs/plain/seed1"] == {"reward.accuracy": "1.0", "reward.format": "0.0", "reward.brevity": "0.0"}
    assert weights[of_stage(study, "sft").folder] == dict.fromkeys(weights["runs/base/seed1"], "0.0")


def test_values_are_numbers_where_they_can_be() -> None:
    study = small_study(seeds=(7,))
    params = run_params(study, policies(study)["runs/base/seed7"])
    assert params["seed"] == "7"
    assert params["rl.learning_rate"] == "0.0002"
    assert params["rl.epsilon_high"] == params["rl.epsilon"] == "0.2"  # null stands for the same value
    assert params["rl.use_bias_correction_kl"] == "1"
    assert params["rl.mask_truncated_completions"] == "0"
    assert params["rl.delta"] == "none"
    assert params["evaluation.sets"] == "test"
    assert params["data.splits.train"] == "3"
    assert params["credit"] == "uniform"


def test_a_run_shows_only_the_sections_that_made_it() -> None:
    study = small_study()
    start, model = (run_params(study, of_stage(study, stage)) for stage in ("sft", "model"))
    assert (start["sft.max_steps"], start["rl.max_steps"], start["credit"]) == ("4", "none", "none")
    assert (start["seed"], model["seed"]) == ("0", "none")  # the warm start's own seed
    assert (model["model.kind"], model["sft.max_steps"]) == ("tiny_vlm", "none")


def test_weights_that_change_over_training_are_params_too() -> None:
    study = small_study()
    arm = study.arms["base"]
    changed = {
        "accuracy": arm.recipe.rewards["accuracy"].model_copy(update={"early_weight": 0.25}),
        "format": arm.recipe.rewards["format"].model_copy(update={"schedule": ((0.1, 2.0), (0.5, 0.0))}),
    }
    recipe = arm.recipe.model_copy(update={"rewards": arm.recipe.rewards | changed})
    study = study.model_copy(update={"arms": study.arms | {"base": arm.model_copy(update={"recipe": recipe})}})
    params = run_params(study, policies(study)["runs/base/seed1"])
    assert (params["reward.accuracy"], params["reward_early.accuracy"]) == ("1.0", "0.25")
    assert params["reward_schedule.format"] == "0.1:2,0.5:0"
    assert run_params(study, policies(study)["runs/plain/seed1"])["reward_early.accuracy"] == "none"


def test_options_of_rewards_and_several_credit_parts_are_params_too() -> None:
    study = small_study()
    arm = study.arms["base"]
    rewards = arm.recipe.rewards
    format_reward = rewards["format"].model_copy(update={"options": {"cache": 4, "names": ["a", "b"]}})
    parts = (UniformCredit(kind="uniform"), AttentionWeights(kind="attention_weights"))
    recipe = arm.recipe.model_copy(update={"rewards": rewards | {"format": format_reward}, "credit": parts})
    study = study.model_copy(update={"arms": study.arms | {"base": arm.model_copy(update={"recipe": recipe})}})
    params = run_params(study, policies(study)["runs/base/seed1"])
    assert (params["reward.format.cache"], params["reward.format.names"]) == ("4", "a,b")
    assert params["credit"] == "uniform,attention_weights"
    assert (params["credit.attention_weights.clip"], params["credit.attention_weights.sigma"]) == ("0.2,3.0", "0.0")
    assert (params["credit_denominator"], params["entropy_penalty_coef"]) == ("all", "0.0")
    assert params["signals.perception.block"] == "14"
    assert run_params(study, policies(study)["runs/plain/seed1"])["reward.format.cache"] == "none"

"""The committed studies are valid and compare the arms that they announce."""

import pytest

from rlassay.config import load_study

# Accuracy, VGR, format, length: the weights after the early phase, and those in it.
EXPERIMENTS = {
    "experiment1": ([2.5, 0.0, 0.5, 1.0], [1.0, 0.0, 2.0, 1.0]),
    "experiment2": ([0.0, 2.5, 0.5, 1.0], [0.0, 1.0, 2.0, 1.0]),
    "experiment3": ([2.5, 1.0, 0.5, 1.0], [1.0, 1.0, 2.0, 1.0]),
    "experiment4": ([2.5, 1.0, 0.5, 1.0], [1.0, 1.0, 2.0, 1.0]),
    "experiment5": ([2.5, 0.0, 0.5, 1.0], [1.0, 0.0, 2.0, 1.0]),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_five_experiments_have_the_published_weights(name: str):
    rewards = load_study("s2_dapo_vlm").arms[name].recipe.rewards
    assert list(rewards) == ["choice_accuracy", "vision_gain", "strict_think_answer_format", "soft_overlong"]
    late = [reward.weight for reward in rewards.values()]
    early = [reward.weight if reward.early_weight is None else reward.early_weight for reward in rewards.values()]
    assert (late, early) == EXPERIMENTS[name]


def test_only_experiment4_pays_right_answers_alone_and_only_experiment5_weighs_tokens():
    arms = load_study("s2_dapo_vlm").arms
    assert [name for name, arm in arms.items() if "hard_negative" in arm.recipe.rewards["vision_gain"].options] == [
        "experiment4"
    ]
    weighed = {name: arm.recipe.credit[0] for name, arm in arms.items() if arm.recipe.credit[0].kind != "uniform"}
    assert list(weighed) == ["experiment5"]
    assert weighed["experiment5"].model_dump() == {
        "kind": "attention_weights",
        "clip": (0.2, 3.0),
        "sigma": 1.0,
        "smooth_first": True,
        "quantile_cap": 0.95,
        "negative_scale": 0.5,
    }


def test_the_balance_study_pays_four_to_one_to_one():
    full = load_study("s0_mdi").arms["full"].recipe
    assert {name: reward.weight for name, reward in full.rewards.items()} == {
        "choice_accuracy": 4.0,
        "think_format": 1.0,
        "modality_balance": 1.0,
    }
    assert (full.rl.loss_type, full.rl.mask_truncated_completions, full.rl.epsilon_high) == ("dapo", True, 0.28)

"""The committed studies are valid and compare the arms that they announce."""

from pathlib import Path

import pytest

from rlassay.config import load_study
from rlassay.config.algorithm import AdaptiveController, ReplayConfig
from rlassay.data.prepare import run_prepare_data
from rlassay.layout import Layout
from rlassay.records import read_rows

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


def test_the_experiments_replay_groups_above_their_own_minimum_reward():
    arms = load_study("s2_dapo_vlm").arms
    replays = {name: arms[name].recipe.rl.replay for name in EXPERIMENTS}
    least = {name: 1.0 if name == "experiment4" else 1.5 for name in EXPERIMENTS}
    assert replays == {name: ReplayConfig(size=64, min_std=1e-6, min_mean=mean) for name, mean in least.items()}


def test_token_perception_has_the_values_of_its_manual():
    published = load_study("s1_mtrl").arms["gae_mtrl"].recipe
    rl, kl = published.rl, published.rl.kl
    assert (rl.epsilon, rl.epsilon_high, rl.delta, rl.learning_rate, rl.beta) == (0.2, 0.3, 3.0, 5e-7, 0.01)
    assert kl is not None
    assert (kl.kind, kl.where) == ("kl", "reward")
    assert kl.controller == AdaptiveController(kind="adaptive", target=6.0, horizon=10_000.0, per="token")
    assert rl.advantage.model_dump(include={"kind", "gamma", "lam"}) == {"kind": "gae", "gamma": 1.0, "lam": 0.95}
    options = [part.model_dump(include={"kind", "fraction", "min_scale"}) for part in published.credit]
    assert options == [
        {"kind": "entropy_filter", "fraction": 0.2},
        {"kind": "perception_filter", "fraction": 0.2},
        {"kind": "trajectory_scaling", "min_scale": 0.8},
    ]
    sampling = load_study("s1_mtrl").arms["online_filter"].recipe.rl.dynamic_sampling
    assert sampling is not None
    assert (sampling.filter_low, sampling.filter_high, sampling.max_resample) == (0.01, 0.99, 20)


def test_the_balance_study_pays_four_to_one_to_one():
    full = load_study("s0_mdi").arms["full"].recipe
    assert {name: reward.weight for name, reward in full.rewards.items()} == {
        "choice_accuracy": 4.0,
        "think_format": 1.0,
        "modality_balance": 1.0,
    }
    assert (full.rl.loss_type, full.rl.mask_truncated_completions, full.rl.epsilon_high) == ("dapo", True, 0.28)


def test_the_chat_study_has_the_published_weights_and_kl():
    full = load_study("s4_chat").arms["full"].recipe
    weights = {name: reward.weight for name, reward in full.rewards.items() if reward.weight}
    assert weights == {"rouge_l": 0.3, "length_similarity": 0.2, "judge": 0.5}
    assert full.rewards["length_similarity"].options == {"scale": 0.5}
    assert (full.rl.beta, full.rl.use_bias_correction_kl) == (0.04, False)


def test_brevity_is_paid_in_the_second_half_alone():
    phases = load_study("gsm8k_text").arms["brief_late"].recipe.weight_phases["soft_overlong"]
    assert phases == ((0.0, 0.0), (0.5, 1.0))


def test_a_later_version_of_the_experiments_replaces_the_length_reward():
    rewards = load_study("s2_dapo_vlm").arms["later_length"].recipe.rewards
    assert {name: reward.weight for name, reward in rewards.items()} == {
        "choice_accuracy": 2.5,
        "vision_gain": 0.0,
        "strict_think_answer_format": 0.5,
        "accuracy_conditioned_length": 1.0,
    }


def test_the_example_with_images_reads_every_row(tmp_path: Path):
    study = load_study("examples/own_images.yaml")
    counts = run_prepare_data(study, Layout(root=tmp_path))
    assert {split: count.rows for split, count in counts.items()} == {"sft": 24, "train": 24, "test": 8}
    rows = list(read_rows(Layout(root=tmp_path).split("test")))
    assert all(len(row.media) == 1 and row.answer.startswith("<think>") for row in rows)


def test_estimators_have_a_point_near_the_step_at_which_remax_has_generated_as_much_as_grpo_in_all():
    study = load_study("estimators")
    rl, every = study.arms["remax"].recipe.rl, study.evaluation.every
    assert every is not None
    greedy = rl.per_device_train_batch_size // rl.num_generations  # one more for each prompt
    as_much = rl.max_steps * rl.per_device_train_batch_size / (rl.per_device_train_batch_size + greedy)
    assert 0 <= as_much % every < 1  # steps
    assert len({arm.recipe.rl.max_steps for arm in study.arms.values()}) == 1


def test_the_perception_study_names_its_preset_and_leaves_out_the_online_filter():
    arms = load_study("s1_vppo").arms
    assert [part.kind for part in arms["vppo"].recipe.credit] == ["perception_filter", "trajectory_scaling"]
    for arm in arms.values():
        assert (arm.recipe.rl.delta, arm.recipe.entropy_penalty_coef, arm.recipe.rl.dynamic_sampling) == (
            3.0,
            0.06,
            None,
        )

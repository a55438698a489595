"""The policies of a study."""

import re

from rlassay.config.fingerprints import model_id, rl_id, sft_id, sft_policy
from rlassay.config.policies import folder_pattern, label_of, policies
from rlassay.layout import Layout
from tests.config.studies import GONE, study


def test_models_first_then_shared_warm_starts_then_runs():
    loaded = study(seeds=[1, 2])
    recipe = loaded.arms["base"].recipe
    found = policies(loaded)
    runs = [f"runs/{arm}/seed{seed}" for arm in loaded.arms for seed in (1, 2)]
    start = sft_policy(loaded, recipe, 1)
    assert list(found) == [Layout.untrained(model_id(loaded, recipe)), start, *runs]
    assert [policy.stage for policy in found.values()] == ["model", "sft", *["rl"] * 8]
    assert all(policy.folder == folder for folder, policy in found.items())
    assert (found[str(start)].seed, found[str(start)].fingerprint) == (None, sft_id(loaded, recipe))
    run = found["runs/dr_grpo/seed2"]
    assert (run.arm, run.seed, run.recipe) == ("dr_grpo", 2, loaded.arms["dr_grpo"].recipe)
    assert run.fingerprint == rl_id(loaded, "dr_grpo", 2)


def test_a_warm_start_per_seed_and_one_of_its_own():
    sft = {"sft__per_seed": True, "sft__max_steps": 7, "arms__dr_grpo__sft": {"max_steps": 3}}
    loaded = study(seeds=[1, 2], arms__dr_grpo__varies=["rl", "sft"], **sft)
    starts = [policy for policy in policies(loaded).values() if policy.stage == "sft"]
    assert [policy.seed for policy in starts] == [1, 2, 1, 2]
    assert [policy.recipe.sft.max_steps for policy in starts if policy.recipe.sft] == [7, 7, 3, 3]


def test_the_pattern_of_the_folders_matches_each_and_nothing_else():
    found = policies(study(seeds=[1, 2], sft__per_seed=True))
    pattern = folder_pattern(found)
    runs = [f"runs/{arm}/seed{seed}" for arm in ("base", "gone") for seed in (1, 3)]
    assert all(re.fullmatch(pattern, folder) for folder in found)
    assert [run for run in runs if re.fullmatch(pattern, run)] == ["runs/base/seed1"]
    assert not any(re.fullmatch(pattern, f"{folder}/x") or re.fullmatch(pattern, folder[:-1]) for folder in found)
    assert pattern.count("runs/base") == 1


def test_no_warm_start_and_two_models():
    hub = {"model": {"kind": "hub", "name": "x"}, "varies": ["model"]}
    stages = [policy.stage for policy in policies(study(sft=GONE, seeds=[1], arms={"base": {}, "hub": hub})).values()]
    assert stages == ["model", "model", "rl", "rl"]


def test_a_model_is_asked_as_the_arm_without_a_warm_start_asks_it():
    bare = {"sft": None, "varies": ["sft"]}
    found = policies(study(seeds=[1], arms={"base": {}, "bare": bare}))
    assert [(policy.stage, policy.recipe.sft is None) for policy in found.values()] == [
        ("model", True),  # although `base` comes first: the gain of `bare` is over the prompts that `bare` trains on
        ("sft", False),
        ("rl", False),
        ("rl", True),
    ]


def test_several_warm_starts_and_models_are_named_after_the_first_arm_that_uses_them():
    hub = {"label": "larger", "model": {"kind": "hub", "name": "x"}, "varies": ["model"]}
    short = {"label": "short", "sft": {"max_steps": 3}, "varies": ["sft"]}
    loaded = study(seeds=[1], arms={"base": {"label": "plain"}, "hub": hub, "short": short})
    every = policies(loaded).values()
    assert [label_of(loaded, policy, every) for policy in every] == [
        *["Untrained model for plain", "Untrained model for larger"],
        *["SFT for plain", "SFT for larger", "SFT for short"],
        *["plain", "larger", "short"],
    ]
    alone = policies(study(seeds=[1])).values()
    assert [label_of(loaded, policy, alone) for policy in alone if policy.arm is None] == ["Untrained model", "SFT"]

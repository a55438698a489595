"""Sections that choose the algorithm: what they refuse, and what they leave unchanged."""

from typing import Any

import pytest

from rlassay.config.fingerprints import rl_id
from rlassay.config.training import GRPOArguments
from tests.config.studies import problems, study

VIDEO: dict[str, Any] = {"kind": "hub", "name": "x/y-1B", "clips": {"show": "video"}}
MAX_RL: dict[str, Any] = {"kind": "max_rl"}
ADAPTIVE: dict[str, Any] = {"kind": "adaptive", "target": 0.1, "horizon": 1000.0}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"rl__sync_ref_model": True}, "rl.sync_ref_model: true, but without beta or kl there is no reference"),
        ({"rl__kl": {"controller": ADAPTIVE}}, "rl.beta: 0, but an adaptive controller multiplies it"),
        (
            {"rl__beta": 0.1, "rl__kl": {"controller": ADAPTIVE | {"horizon": 20.0}}},
            "rl.kl.controller.horizon: 20, but each of its steps is for 128 completions",
        ),
        (
            {"rl__kl": {"where": "reward"}, "rl__multi_objective_aggregation": "normalize_then_sum"},
            "rl.kl.where: reward, but rl.multi_objective_aggregation normalize_then_sum",
        ),
        ({"rl__guard": {"max_kl": 1.0}}, "rl.guard.max_kl: no KL is measured; add rl.kl"),
        (
            {"credit": [{"kind": "covariance_penalty"}]},
            "credit.0: covariance_penalty has no gradient where each generation batch trains one optimiser step",
        ),
        (
            {"rl__beta": 0.1, "rl__kl": {"where": "reward", "credit": [{"kind": "entropy_filter"}]}},
            "rl.kl.credit: weighs tokens in the loss, but rl.kl.where is reward",
        ),
        (
            {"rl__kl": {"credit": [{"kind": "shuffled_weights"}]}},
            "rl.kl.credit.0: shuffled_weights has nothing to shuffle",
        ),
        ({"rl__kl": {"credit": [{"kind": "covariance_penalty"}]}}, "rl.kl.credit.0"),
        (
            {"rl__kl": {"credit": [{"kind": "entropy_filter"}]}},
            "rl.kl.credit: weighs a penalty whose weight rl.beta is 0",
        ),
        ({"rl__delta": 1.1}, "rl.delta: 1.1 is inside the clip range, where it changes nothing; expected above 1.2"),
        (
            {"rl__advantage": {"kind": "pass_at_k", "k": 4}, "rl__train_on": 2},
            "rl.advantage.k: 4, expected less than rl.train_on, 2",
        ),
        (
            {"rl__advantage": {"kind": "pass_at_k", "k": 8}},
            "rl.advantage.k: 8, expected less than rl.num_generations, 8: sets of 8 completions have to differ",
        ),
        (
            {"rl__advantage": MAX_RL, "rewards__soft_overlong__weight": 0.5},
            "rewards.soft_overlong: gives total rewards below 0, which rl.advantage max_rl does not take",
        ),
        ({"rl__advantage": MAX_RL, "rewards__think_answer_format__early_weight": -1.0}, "rewards.think_answer_format"),
        (
            {"rl__advantage": MAX_RL, "rl__multi_objective_aggregation": "normalize_then_sum"},
            "rl.multi_objective_aggregation: normalize_then_sum: gives total rewards below 0",
        ),
        (
            {"rl__advantage": MAX_RL, "rl__beta": 0.1, "rl__kl": {"where": "reward"}},
            "rl.kl.where: reward: gives total rewards below 0",
        ),
        ({"rl__sapo_temperature_pos": 2.0}, "rl.sapo_temperature_pos: 2, but rl.loss_type dapo does not use it"),
    ],
)
def test_options_that_contradict_each_other_are_refused(edits: dict[str, Any], message: str):
    found = problems(**edits)
    assert [problem for problem in found if message in problem], found


def test_delta_needs_a_loss_that_clips():
    arms = {"base": {"rl": {"loss_type": "sapo", "delta": 3.0}}}
    assert any("rl.delta: 3, but rl.loss_type sapo" in problem for problem in problems(arms=arms))


def test_options_at_their_defaults_leave_fingerprints_as_they_were():
    before = rl_id(study(), "base", 1)
    same = {"rl__sync_ref_model": False, "rl__adam_beta2": 0.999, "rl__entropy_coef": 0.0, "rl__kl": None}
    assert rl_id(study(**same), "base", 1) == before
    assert rl_id(study(rl__adam_beta2=0.95), "base", 1) != before
    assert rl_id(study(rl__kl={}), "base", 1) != before
    assert rl_id(study(rl__kl={"credit": []}), "base", 1) == rl_id(study(rl__kl={}), "base", 1)
    credited, plain = (study(rl__beta=0.1, rl__kl=kl) for kl in ({"credit": [{"kind": "random_filter"}]}, {}))
    assert rl_id(credited, "base", 1) != rl_id(plain, "base", 1)


def test_a_penalty_on_reused_samples_is_no_problem():
    credit = [{"kind": "covariance_penalty"}]
    recipe = study(credit=credit, rl__num_iterations=2, rl__save_steps=2).arms["base"].recipe
    assert [part.kind for part in recipe.credit] == ["covariance_penalty"]


def test_options_that_fit_are_no_problem():
    study(rl__advantage=MAX_RL)
    study(model=VIDEO, rl__replay={}, rl__dynamic_sampling={})
    study(model=VIDEO, rl__advantage={"kind": "gae"}, rl__kl={"kind": "exact"})


def test_the_resolved_study_names_every_argument_of_trl_that_a_study_sets():
    assert set(GRPOArguments.model_fields) <= set(study().arms["base"].recipe.model_dump(mode="json")["rl"])

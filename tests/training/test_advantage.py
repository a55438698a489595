"""Another advantage estimator inside our trainer."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer

from rlassay.advantages import ADVANTAGES, as_estimator, estimate, in_groups, pass_at_k
from rlassay.config.section import Section
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.choice import GroupPlan
from rlassay.training.rl import advantage_estimator
from rlassay.training.rollouts import Rollout
from tests.training.short_run import load_short, policy_of
from tests.training.test_trainer import TWO_REWARDS
from tests.training.tiny_lm import make_trainer, weights


def leave_one_out(rewards: Tensor, num_generations: int, scale: float = 1.0) -> Tensor:
    """A toy: reward minus the mean of the other completions of the group, times `scale`."""
    grouped = in_groups(rewards, num_generations)
    others = (grouped.sum(dim=1, keepdim=True) - grouped) / (num_generations - 1)
    return scale * (grouped - others).view_as(rewards)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy under its name."""
    monkeypatch.setitem(ADVANTAGES, "leave_one_out", leave_one_out)


def test_the_trainer_learns_from_the_advantages_of_a_registered_estimator(tmp_path: Path):
    seen: list[Rollout] = []
    settings: dict[str, Any] = {"max_steps": 1, "reward_funcs": TWO_REWARDS, "reward_weights": [1.0, 0.25]}
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, advantage="leave_one_out", **settings)
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    # Totals 1, .5, 0, .5 (sum 2: the others' means are 1/3, 1/2, 2/3, 1/2) and 1, 1, 1, 2 (4/3, 4/3, 4/3, 1).
    expected = [2 / 3, 0.0, -2 / 3, 0.0, -1 / 3, -1 / 3, -1 / 3, 1.0]
    assert seen[0].advantages.tolist() == pytest.approx(expected, abs=1e-6)
    assert list(trainer._logs["advantages"]) == pytest.approx(expected, abs=1e-6)  # the table that TRL can log
    # Three quarters of it are the reward minus the mean of the group, TRL's advantages without scaling: the same loss.
    ours = make_trainer(CreditGRPOTrainer, tmp_path, advantage=partial(leave_one_out, scale=0.75), **settings)
    ours.train()
    theirs = make_trainer(GRPOTrainer, tmp_path, scale_rewards="none", **settings)
    theirs.train()
    for name, value in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], value, atol=1e-5, rtol=1e-4)
    default = make_trainer(CreditGRPOTrainer, tmp_path, **settings)
    default.train()
    assert any((weights(default)[name] - value).abs().max() > 1e-3 for name, value in weights(theirs).items())


@pytest.mark.parametrize("advantage", [None, "grpo"])
def test_none_and_grpo_leave_the_advantages_to_trl(advantage: str | None):
    assert as_estimator(advantage) is None


def test_an_unknown_estimator_is_an_error(tmp_path: Path):
    known = f"got 'leave_on_out', expected one of {', '.join(ADVANTAGES)}; did you mean 'leave_one_out'?"
    with pytest.raises(ValueError, match=re.escape(known)):
        make_trainer(CreditGRPOTrainer, tmp_path, advantage="leave_on_out")
    with pytest.raises(TypeError, match="advantage"):
        make_trainer(CreditGRPOTrainer, tmp_path, advantage=0.5)


def test_an_unscored_completion_has_no_advantage():
    rewards = torch.tensor([1.0, float("nan"), 3.0])
    assert estimate(lambda rewards, num_generations: 2 * rewards, rewards, 3).tolist() == [2.0, 0.0, 6.0]


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (lambda rewards, num_generations: rewards[:2], r"got shape \(2,\), expected one advantage per .*, \(3,\)"),
        (lambda rewards, num_generations: rewards / 0, "got a NaN or infinite advantage, expected finite ones"),
    ],
)
def test_wrong_advantages_are_an_error(estimator: Callable[..., Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        estimate(estimator, torch.tensor([1.0, 0.0, 3.0]), 3)


@pytest.mark.parametrize(
    ("advantage", "groups", "message"),
    [
        (partial(pass_at_k, k=5), None, "pass_at_k: got k = 5, expected 1 to num_generations, 4"),
        (partial(pass_at_k, k=3), GroupPlan(train_on=2), "pass_at_k: got k = 3, expected 1 to num_generations, 2"),
    ],
)
def test_options_that_do_not_fit_the_groups_are_refused_before_anything_is_sampled(
    advantage: Callable[..., Tensor], groups: GroupPlan | None, message: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=message):
        make_trainer(CreditGRPOTrainer, tmp_path, advantage=advantage, groups=groups)


class LeaveOneOut(Section):
    """The toy's section of a study."""

    kind: Literal["leave_one_out"]
    scale: float = 1.0


def test_the_section_of_a_study_chooses_the_estimator_and_its_options(tmp_path: Path):
    rl = policy_of(load_short(tmp_path)).recipe.rl
    assert advantage_estimator(rl) is None
    changed = rl.model_copy(update={"advantage": LeaveOneOut(kind="leave_one_out", scale=3.0)})
    estimator = advantage_estimator(changed)
    assert estimator is not None
    assert estimator(torch.tensor([1.0, 0.0]), 2).tolist() == [3.0, -3.0]

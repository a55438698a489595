from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.credit import TokenSignals
from rlassay.records import PromptRow
from rlassay.rewards.sandbox.guard import in_process
from rlassay.training import CreditGRPOTrainer
from rlassay.training.group_reward import GroupReward
from rlassay.training.rollouts import Rollout
from tests.training.tiny_lm import NUM_PROMPTS, brevity, even_digits, make_trainer, weights

ROWS = {f"p{index}": PromptRow(prompt_id=f"p{index}", question="count", answer="0") for index in range(NUM_PROMPTS)}


def scripted(name: str, *values: float) -> Any:
    """A reward in TRL's signature that gives a batch these values, whatever its completions."""

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        return list(values)

    reward.__name__ = name
    return reward


def one_step(folder: Path, **changes: Any) -> tuple[Rollout, dict[str, float]]:
    """The rollout and the logged metrics of one step of two groups of four."""
    seen: list[Rollout] = []
    trainer = make_trainer(CreditGRPOTrainer, folder, max_steps=1, **changes)
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    (rollout,) = seen
    return rollout, trainer.state.log_history[0]


FIRST = (1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0)
SECOND = (0.0, 2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 4.0)
TWO_REWARDS = [scripted("first", *FIRST), scripted("second", *SECOND)]


def test_advantages_are_the_rewards_minus_the_mean_of_the_group_over_its_deviation(tmp_path: Path):
    rollout, logged = one_step(tmp_path, reward_funcs=TWO_REWARDS, reward_weights=[1.0, 0.25])
    # Sums: 1, .5, 0, .5 (mean .5, deviation .40825) and 1, 1, 1, 2 (mean 1.25, deviation .5); TRL adds 1e-4.
    expected = [1.22445, 0.0, -1.22445, 0.0, -0.49990, -0.49990, -0.49990, 1.49970]
    assert rollout.advantages.tolist() == pytest.approx(expected, abs=1e-5)
    assert rollout.weighted[:4].tolist() == [[1.0, 0.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.5]]
    assert rollout.raw[1].tolist() == [0.0, 2.0]
    assert logged["reward"] == pytest.approx(0.875)
    assert logged["frac_reward_zero_std"] == 0.0


def test_a_logged_only_reward_never_changes_an_advantage(tmp_path: Path):
    rollout, logged = one_step(tmp_path, reward_funcs=TWO_REWARDS, reward_weights=[1.0, 0.0])
    # First group 1, 0, 0, 0: mean .25, deviation .5. Second group: all 1.
    expected = [1.49970, -0.49990, -0.49990, -0.49990, 0.0, 0.0, 0.0, 0.0]
    assert rollout.advantages.tolist() == pytest.approx(expected, abs=1e-5)
    assert rollout.raw[:, 1].tolist() == list(SECOND)
    assert rollout.weighted[:, 1].tolist() == [0.0] * 8
    # Mean of SECOND is 8/8; squares sum to 24, so its deviation is sqrt((24 - 8) / 7).
    assert logged["rewards/second/mean"] == pytest.approx(1.0)
    assert logged["rewards/second/std"] == pytest.approx(1.51186, abs=1e-5)
    assert logged["frac_reward_zero_std"] == 0.5


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_logged_only_rewards_change_nothing_except_their_own_columns(aggregation: str, tmp_path: Path):
    def run(*logged_only: Any) -> tuple[list[Rollout], dict[str, torch.Tensor], list[dict[str, float]]]:
        seen: list[Rollout] = []
        trainer = make_trainer(
            CreditGRPOTrainer,
            tmp_path,
            max_steps=2,
            reward_funcs=[even_digits, *logged_only, brevity],
            reward_weights=[1.0, *[0.0] * len(logged_only), 0.25],
            multi_objective_aggregation=aggregation,
        )
        trainer.xp_listeners.append(seen.append)
        trainer.train()
        return seen, weights(trainer), trainer.state.log_history[:2]

    odd = in_process("odd", lambda group: [1e6, float("nan"), None, -3.0], {}, max_failures=0.9)
    ours = GroupReward(odd, rows=ROWS, num_generations=4, end_token_ids=[1])
    mute = GroupReward(
        in_process("mute", lambda group: [None] * 4, {}), rows=ROWS, num_generations=4, end_token_ids=[1]
    )
    (alone, weights_alone, logged_alone), (beside, weights_beside, logged) = (
        run(),
        run(scripted("theirs", *SECOND), ours, mute),
    )
    for one, other in zip(alone, beside, strict=True):
        assert torch.equal(one.advantages, other.advantages)
        assert torch.equal(one.raw, other.raw[:, [0, 4]])
        assert one.completions == other.completions
    assert all(torch.equal(weights_alone[name], value) for name, value in weights_beside.items())
    for before, after in zip(logged_alone, logged, strict=True):
        shared = {name for name in before if "time" not in name}
        assert {name: before[name] for name in shared} == {name: after[name] for name in shared}
    assert (logged[0]["rewards/odd/coverage"], logged[0]["rewards/mute/coverage"]) == (0.5, 0.0)
    assert (logged[0]["rewards/odd/frac_zero_std"], logged[0]["rewards/mute/frac_zero_std"]) == (0.0, 1.0)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_each_reward_has_metrics_of_its_own_under_either_aggregation(aggregation: str, tmp_path: Path):
    _, logged = one_step(tmp_path, reward_funcs=TWO_REWARDS, multi_objective_aggregation=aggregation)
    # FIRST varies in its first group only, SECOND in both.
    assert (logged["rewards/first/frac_zero_std"], logged["rewards/second/frac_zero_std"]) == (0.5, 0.0)
    assert (logged["rewards/first/coverage"], logged["rewards/first/weight"]) == (1.0, 1.0)
    # Means 5/8 and 1: sum of products 4 - 8 * 5/8 = -1; squares 5 - 25/8 = 15/8 and 24 - 8 = 16.
    assert logged["rewards/first/correlation/second"] == pytest.approx(-1 / (15 / 8 * 16) ** 0.5)
    assert "rewards/second/correlation/first" not in logged


def test_groups_without_advantages_are_counted_when_rewards_are_normalised_first(tmp_path: Path):
    _, logged = one_step(
        tmp_path,
        reward_funcs=[scripted("first", *FIRST), scripted("constant", 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0)],
        multi_objective_aggregation="normalize_then_sum",
    )
    assert logged["frac_reward_zero_std"] == 0.5  # the second group; TRL itself says 0


def test_an_unscored_completion_is_neither_paid_nor_fined(tmp_path: Path):
    quality = in_process("quality", lambda group: [1.0, None, 0.0, 0.5], {})
    reward = GroupReward(quality, rows=ROWS, num_generations=4, end_token_ids=[1])
    rollout, logged = one_step(tmp_path, reward_funcs=reward, reward_weights=[2.0])
    # The scored ones have the mean .5, imputed for None; deviation of 2, 1, 0, 1 is .8165.
    assert rollout.advantages.tolist() == pytest.approx([1.22460, 0.0, -1.22460, 0.0] * 2, abs=1e-4)
    assert torch.isnan(rollout.raw[:, 0]).tolist() == [False, True, False, False] * 2
    assert rollout.weighted[:, 0].tolist() == [2.0, 1.0, 0.0, 1.0] * 2
    # Mean and deviation are over the scored ones: 1, 0, .5 twice, deviation sqrt(1 / 5).
    assert logged["rewards/quality/mean"] == pytest.approx(0.5)
    assert logged["rewards/quality/std"] == pytest.approx(0.447214, abs=1e-5)


def test_failures_are_logged_and_recorded_by_kind(tmp_path: Path):
    quality = in_process("quality", lambda group: [1.0, float("nan"), 0.0, float("inf")], {}, max_failures=0.9)
    reward = GroupReward(quality, rows=ROWS, num_generations=4, end_token_ids=[1])
    rollout, logged = one_step(tmp_path, reward_funcs=[reward, even_digits])
    assert rollout.failed == {"quality": [None, "not_finite", None, "not_finite"] * 2}
    assert {name: value for name, value in logged.items() if "failed" in name} == {
        "rewards/quality/failed/not_finite": 4
    }


def test_every_completion_is_recorded_with_its_prompt_and_length(tmp_path: Path):
    rollout, logged = one_step(tmp_path, reward_funcs=even_digits)
    assert rollout.step == 1
    assert rollout.num_generations == 4
    assert len(set(rollout.prompt_ids[:4])) == len(set(rollout.prompt_ids[4:])) == 1
    assert set(rollout.prompt_ids) <= set(ROWS)
    assert logged["completions/mean_length"] == pytest.approx(sum(rollout.token_counts) / 8)
    assert logged["completions/clipped_ratio"] == pytest.approx(1 - sum(rollout.finished) / 8)
    assert all(finished or count == 7 for finished, count in zip(rollout.finished, rollout.token_counts, strict=True))
    assert rollout.raw[:, 0].tolist() == pytest.approx(even_digits(rollout.completions))


def test_the_seed_decides_the_first_rollout_and_the_weights(tmp_path: Path):
    def run(seed: int) -> tuple[list[str], dict[str, torch.Tensor]]:
        seen: list[Rollout] = []
        trainer = make_trainer(CreditGRPOTrainer, tmp_path, max_steps=2, seed=seed)
        trainer.xp_listeners.append(seen.append)
        trainer.train()
        return [text for rollout in seen for text in rollout.completions], weights(trainer)

    (first, weights_of_first), (again, weights_again), (other, _) = run(1), run(1), run(2)
    assert first == again
    assert all(torch.equal(weights_of_first[name], value) for name, value in weights_again.items())
    assert first[:8] != other[:8]


def test_credit_multiplies_and_reaches_the_loss(tmp_path: Path):
    def first_token_only(signals: TokenSignals) -> torch.Tensor:
        kept = torch.zeros_like(signals.completion_mask, dtype=torch.float32)
        kept[:, 0] = 1.0
        return kept

    def double(signals: TokenSignals) -> torch.Tensor:
        return torch.full_like(signals.completion_mask, 2.0, dtype=torch.float32)

    trainer = make_trainer(CreditGRPOTrainer, tmp_path, credit=[first_token_only, double])
    rollouts: list[Rollout] = []
    trainer.xp_listeners.append(rollouts.append)
    output = trainer._generate_and_score_completions([trainer.train_dataset[index // 4] for index in range(8)])
    advantages = rollouts[0].advantages
    assert torch.equal(output["advantages"][:, 0], 2 * advantages)
    assert not output["advantages"][:, 1:].any()


@pytest.mark.parametrize("credit", [1.0, [1.0]])
def test_credit_that_cannot_be_called_is_refused(credit: Any, tmp_path: Path):
    with pytest.raises(TypeError, match="credit"):
        make_trainer(CreditGRPOTrainer, tmp_path, credit=credit)

"""Dynamic sampling, replay and part of a group inside our trainer."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from rlassay.advantages import grpo, in_groups
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.choice import GroupPlan
from rlassay.training.algorithms.dynamic_sampling import DynamicSampling
from rlassay.training.algorithms.replay import Replay
from rlassay.training.rollouts import Rollout, ShardWriter, generated_tokens, rollout_table
from tests.training.tiny_lm import make_trainer, weights

DYNAMIC = GroupPlan(dynamic_sampling=DynamicSampling(max_resample=20))


def odd_prompts_only(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """The last digit of each completion over 9; 0 for half of the prompts, which are dead."""
    return [
        (float(int(prompt.split()[1]) % 2) * (int(text.split()[-1]) if text.split() else 0) / 9)
        for prompt, text in zip(prompts, [each.replace("count", "") for each in completions], strict=True)
    ]


def spied(trainer: Any) -> list[int]:
    """The number of tokens of every completion that the trainer samples."""
    counts: list[int] = []
    sample: Callable[..., Any] = trainer._generate_single_turn

    def counting(*args: Any, **options: Any) -> Any:
        ids, logps = sample(*args, **options)
        counts.extend(len(each) for each in ids)
        return ids, logps

    trainer._generate_single_turn = counting
    return counts


def trained(folder: Path, groups: GroupPlan | None, resume: bool | str = False, **changes: Any) -> Any:
    trainer = make_trainer(CreditGRPOTrainer, folder, groups=groups, **{"reward_funcs": odd_prompts_only, **changes})
    trainer.xp_seen = []
    trainer.xp_listeners += [trainer.xp_seen.append, ShardWriter(folder / "rollouts", rollout_table)]
    trainer.xp_counts = spied(trainer)
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def batches(trainer: Any, use: str) -> list[Rollout]:
    return [each for each in trainer.xp_seen if each.use and use in each.use]


def test_with_half_of_the_prompts_dead_every_trained_group_varies_and_every_token_is_counted(tmp_path: Path):
    trainer = trained(tmp_path, DYNAMIC, max_steps=4)
    kept, dropped = batches(trainer, "trained"), batches(trainer, "dropped")
    assert len(kept) == 4
    assert dropped
    for rollout in kept:
        assert in_groups(rollout.raw[:, 0], 4).std(dim=1).min() > 0
        assert len(set(rollout.prompt_ids)) == 2
    assert all(in_groups(rollout.raw[:, 0], 4).std(dim=1).max() == 0 for rollout in dropped)
    counts = [count for rollout in trainer.xp_seen for count in rollout.token_counts]
    assert sorted(counts) == sorted(trainer.xp_counts)
    assert generated_tokens(tmp_path / "rollouts") == sum(trainer.xp_counts)
    logs = trainer.state.log_history[:-1]
    assert sum(log["sampled_tokens"] for log in logs) == sum(trainer.xp_counts)
    assert sum(log["sampled_completions"] for log in logs) == len(trainer.xp_counts)
    assert sum(log["dynamic_sampling/dropped_tokens"] for log in logs) == sum(
        sum(each.token_counts) for each in dropped
    )
    assert [log["frac_reward_zero_std"] for log in logs] == [0] * 4
    for log in logs:
        assert log["dynamic_sampling/kept_fraction"] == pytest.approx(2 / log["dynamic_sampling/sampled_groups"])
        assert log["dynamic_sampling/unfilled_groups"] == 0


def test_the_chosen_batch_is_what_trl_makes_of_the_same_completions(tmp_path: Path):
    settings: dict[str, Any] = {
        "reward_funcs": odd_prompts_only,
        "mask_truncated_completions": True,
        "steps_per_generation": 2,  # so that old log-probabilities are computed
        "per_device_train_batch_size": 4,
        "beta": 0.1,
    }
    ours = make_trainer(CreditGRPOTrainer, tmp_path, groups=DYNAMIC, **settings)
    ours.model.train()
    rows = [ours.train_dataset[index] for index in (0, 2) for _ in range(4)]  # both dead
    output = ours._generate_and_score_completions(rows)
    batch = ours.xp_batch
    theirs = make_trainer(GRPOTrainer, tmp_path, **settings)
    theirs.model.train()
    tokens = batch.prompt_tokens, batch.completion_ids
    theirs._generate = lambda prompts: (*tokens, None, batch.completions, None, {}, None, [])
    expected = theirs._generate_and_score_completions(batch.rows)
    assert output.keys() == expected.keys()
    assert {"old_per_token_logps", "ref_per_token_logps", "num_items_in_batch"} <= output.keys()
    for name, value in expected.items():
        assert torch.equal(output[name], value), name
    assert output["num_items_in_batch"] == output["completion_mask"].sum()
    assert output["advantages"].abs().max() > 0


def test_when_every_prompt_is_dead_the_batch_is_filled_and_nothing_is_learned(tmp_path: Path):
    plan = GroupPlan(dynamic_sampling=DynamicSampling(max_resample=2))
    trainer = trained(tmp_path, plan, max_steps=1, reward_funcs=lambda completions, **_: [1.0] * len(completions))
    (log, _) = trainer.state.log_history
    # Two groups of four, and two rounds of two more.
    assert log["dynamic_sampling/rounds"] == 3
    assert log["dynamic_sampling/sampled_groups"] == 6
    assert log["dynamic_sampling/unfilled_groups"] == 2
    assert log["dynamic_sampling/kept_fraction"] == 0
    start = weights(make_trainer(CreditGRPOTrainer, tmp_path))
    assert all(torch.equal(value, start[name]) for name, value in weights(trainer).items())


def test_the_filter_bounds_the_mean_of_the_chosen_reward(tmp_path: Path):
    options = DynamicSampling(filter_reward="odd_prompts_only", filter_low=0.2, filter_high=0.5, max_resample=20)
    trainer = trained(tmp_path, GroupPlan(dynamic_sampling=options), max_steps=2)
    for rollout in batches(trainer, "trained"):
        means = in_groups(rollout.raw[:, 0], 4).mean(dim=1)
        assert ((means > 0.2) & (means < 0.5)).all()


def test_revisit_passes_over_prompts_whose_groups_were_dropped(tmp_path: Path):
    settings: dict[str, Any] = {"max_steps": 12, "learning_rate": 1e-9}
    plain = trained(tmp_path / "plain", DYNAMIC, **settings)
    plan = GroupPlan(dynamic_sampling=DynamicSampling(max_resample=20, revisit=0.05))
    picky = trained(tmp_path / "picky", plan, **settings)
    assert len(picky.xp_counts) < 0.8 * len(plain.xp_counts)
    assert all(in_groups(each.raw[:, 0], 4).std(dim=1).min() > 0 for each in batches(picky, "trained"))


REPLAY = GroupPlan(replay=Replay(size=3))


def test_dead_groups_give_their_places_to_replayed_ones_with_their_own_advantages(tmp_path: Path):
    trainer = trained(tmp_path, REPLAY, max_steps=6)
    sampled: dict[str, torch.Tensor] = {}
    replayed = 0
    for rollout in trainer.xp_seen:
        use = rollout.use or []
        for first in range(0, len(use), 4):
            own = slice(first, first + 4)
            key = " ".join(rollout.completions[own])
            if use[first] == "trained":
                sampled[key] = rollout.advantages[own]
                assert rollout.advantages[own].tolist() == pytest.approx(
                    grpo(rollout.raw[own, 0], 4).tolist(), abs=1e-5
                )
            elif use[first] == "replayed":
                replayed += 1
                torch.testing.assert_close(rollout.advantages[own], sampled[key])
    assert replayed > 2
    # Replayed completions were counted when they were sampled.
    assert generated_tokens(tmp_path / "rollouts") == sum(trainer.xp_counts)
    logs = trainer.state.log_history[:-1]
    assert len(logs) == 6
    assert sum(log["sampled_tokens"] for log in logs) == sum(trainer.xp_counts)
    assert max(log["replay/size"] for log in logs) == 3
    assert max(log["replay/replayed_fraction"] for log in logs) >= 0.5


BOTH = GroupPlan(dynamic_sampling=DynamicSampling(max_resample=1, revisit=0.7), replay=Replay(size=3))


@pytest.mark.parametrize("plan", [DYNAMIC, REPLAY, BOTH], ids=["dynamic", "replay", "both"])
def test_resumed_in_the_middle_it_ends_with_the_weights_of_an_undisturbed_run(tmp_path: Path, plan: GroupPlan):
    settings: dict[str, Any] = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1}
    whole = trained(tmp_path, plan, **settings)
    resumed = trained(tmp_path, plan, resume=str(tmp_path / "checkpoint-3"), **settings)
    assert len(resumed.xp_counts) < len(whole.xp_counts)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(resumed).items())
    # Without the state it would not: this test sees a state that is lost.
    (tmp_path / "checkpoint-3" / "groups.pt").unlink()
    with pytest.raises(ValueError, match=r"has no groups.pt: it was written without dynamic sampling or replay"):
        trained(tmp_path, plan, resume=str(tmp_path / "checkpoint-3"), **settings)


def test_part_of_each_group_trains_as_a_group_of_its_own(tmp_path: Path):
    trainer = make_trainer(
        CreditGRPOTrainer, tmp_path, groups=GroupPlan(train_on=2), reward_funcs=odd_prompts_only, beta=0.1
    )
    seen: list[Rollout] = []
    trainer.xp_listeners.append(seen.append)
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (1, 3) for _ in range(4)]
    output = trainer._generate_and_score_completions(rows)
    (rollout,) = seen
    use = [each == "trained" for each in rollout.use or []]
    for first in (0, 4):
        rewards = rollout.raw[first : first + 4, 0]
        picked = rewards[torch.tensor(use[first : first + 4])]
        assert sorted(picked.tolist()) == [rewards.min().item(), rewards.max().item()]
    expected = grpo(rollout.raw[torch.tensor(use), 0], 2)
    torch.testing.assert_close(output["advantages"], expected)
    batch = trainer.xp_batch
    ids = [each for each, kept in zip(batch.completion_ids, use, strict=True) if kept]
    trained_ids = zip(output["completion_ids"], output["completion_mask"], strict=True)
    assert [row[mask.bool()].tolist() for row, mask in trained_ids] == ids
    assert output["num_items_in_batch"] == sum(len(each) for each in ids)
    assert {name: len(value) for name, value in output.items() if value.ndim} == dict.fromkeys(
        ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "ref_per_token_logps"), 4
    )
    assert rollout.advantages[~torch.tensor(use)].abs().max() == 0


def test_the_step_on_part_of_each_group_is_that_of_the_smaller_batch(tmp_path: Path):
    """The loss on 2 of 4 equals TRL's loss on a batch that holds these two alone."""
    settings: dict[str, Any] = {"max_steps": 1, "reward_funcs": odd_prompts_only}
    trainer = trained(tmp_path, GroupPlan(train_on=2), **settings)
    batch, (rollout,) = trainer.xp_batch, trainer.xp_seen
    use = [index for index, each in enumerate(rollout.use or []) if each == "trained"]
    theirs = make_trainer(GRPOTrainer, tmp_path, **settings | {"num_generations": 2, "per_device_train_batch_size": 4})

    def given(prompts: list[str]) -> Any:
        prompts[:] = [batch.prompts[index] for index in use]
        picked = [[values[index] for index in use] for values in (batch.prompt_tokens, batch.completion_ids)]
        return (*picked, None, [batch.completions[index] for index in use], None, {}, None, [])

    theirs._generate = given
    theirs.train()
    for name, value in weights(theirs).items():
        torch.testing.assert_close(weights(trainer)[name], value, atol=1e-6, rtol=1e-5)
    assert generated_tokens(tmp_path / "rollouts") == sum(trainer.xp_counts)


@pytest.mark.parametrize(
    ("plan", "changes", "message"),
    [
        ({"train_on": 5}, {}, "train_on: got 5, expected 2 to 4, the completions of a group (num_generations)"),
        (
            {"train_on": 3},
            {"steps_per_generation": 4, "per_device_train_batch_size": 2},
            "train_on: 3 of 4 of the 8 completions of a process are 6, which do not divide into 4 micro-batches",
        ),
        (
            {"dynamic_sampling": DynamicSampling(filter_reward="accuracy")},
            {},
            "dynamic_sampling.filter_reward: got 'accuracy', expected one of even_digits, brevity",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(
    tmp_path: Path, plan: dict[str, Any], changes: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_trainer(CreditGRPOTrainer, tmp_path, groups=GroupPlan(**plan), **changes)


def test_replay_and_part_of_a_group_exclude_each_other():
    with pytest.raises(ValueError, match="got replay and train_on"):
        GroupPlan(replay=Replay(), train_on=2)


def test_without_a_plan_the_rollouts_have_no_further_column(tmp_path: Path):
    trainer = trained(tmp_path, None, max_steps=1)
    assert trainer.xp_seen[0].use is None
    assert "trained" not in rollout_table(trainer.xp_seen[0]).column_names
    assert not any("sampl" in name for name in trainer.state.log_history[0])

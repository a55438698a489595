"""ReMax's baseline: one greedy completion per prompt, really sampled, scored and counted."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from rlassay.layout import Layout
from rlassay.training import CreditGRPOTrainer
from rlassay.training.rl import run_rl
from rlassay.training.rollouts import Rollout
from tests.training.short_run import load_short, policy_of, proof, rollouts
from tests.training.test_trainer import TWO_REWARDS
from tests.training.tiny_lm import even_digits, make_trainer, model, tokenizer, weights

SEEN: list[list[str]] = []


def watched(completions: list[str], **columns: Any) -> list[float]:
    """`even_digits`; keeps the completions that it is called with."""
    SEEN.append(list(completions))
    return even_digits(completions)


def greedy_text(prompt: str) -> tuple[str, int]:
    """The most likely completion of at most seven tokens, token by token without a cache; and its length."""
    policy, words = model(), tokenizer()
    ids = words(prompt)["input_ids"]
    start = len(ids)
    while len(ids) < start + 7 and ids[-1] != words.eos_token_id:
        ids.append(int(policy(torch.tensor([ids])).logits[0, -1].argmax()))
    return words.decode(ids[start:], skip_special_tokens=True), len(ids) - start


def test_each_prompt_has_one_greedy_completion_whose_reward_is_the_baseline(tmp_path: Path):
    SEEN.clear()
    seen: list[Rollout] = []
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, max_steps=1, reward_funcs=watched, advantage="remax")
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    (rollout,), (sampled, greedy) = seen, SEEN
    prompts = [f"count {int(prompt_id[1:]) % 10}" for prompt_id in rollout.prompt_ids[::4]]
    expected = [greedy_text(prompt) for prompt in prompts]
    assert sampled == rollout.completions
    assert greedy == [text for text, _ in expected]
    assert rollout.greedy is not None
    assert rollout.greedy.token_counts == [expected[0][1], 0, 0, 0, expected[1][1], 0, 0, 0]
    baseline = torch.tensor(even_digits(greedy)).repeat_interleave(4)
    torch.testing.assert_close(rollout.greedy.rewards, baseline)
    torch.testing.assert_close(rollout.advantages, rollout.raw[:, 0] - baseline)
    logged = trainer.state.log_history[0]
    assert logged["greedy_reward"] == pytest.approx(baseline.mean().item())
    # TRL's metrics are those of the samples, but for the tokens: two of a prompt each time.
    assert logged["completions/mean_length"] == pytest.approx(sum(rollout.token_counts) / 8)
    assert logged["reward"] == pytest.approx(rollout.raw.mean().item())
    tokens = sum(rollout.token_counts) + sum(rollout.greedy.token_counts)
    assert logged["num_tokens"] == tokens + 2 * (8 + 2)


def test_sampling_goes_on_as_without_it(tmp_path: Path):
    def run(**ours: Any) -> list[list[str]]:
        seen: list[Rollout] = []
        trainer = make_trainer(CreditGRPOTrainer, tmp_path, max_steps=2, learning_rate=1e-30, **ours)
        trainer.xp_listeners.append(seen.append)
        trainer.train()
        return [rollout.completions for rollout in seen]

    assert run(advantage="remax") == run()


def test_a_greedy_completion_that_cannot_be_scored_gives_no_advantage(tmp_path: Path):
    def reward(completions: list[str], **columns: Any) -> list[float | None]:
        return [1.0, 2.0, 3.0, 4.0] * 2 if len(completions) == 8 else [None, 0.5]

    seen: list[Rollout] = []
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, max_steps=1, reward_funcs=reward, advantage="remax")
    trainer.xp_listeners.append(seen.append)
    before = weights(trainer)
    trainer.train()
    assert seen[0].advantages.tolist() == [0.0] * 4 + [0.5, 1.5, 2.5, 3.5]
    assert any(not torch.equal(before[name], value) for name, value in weights(trainer).items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_objective_aggregation": "normalize_then_sum"}, "set sum_then_normalize"),
        ({"rollout_func": lambda prompts, trainer: {}}, "pass no rollout_func"),
    ],
)
def test_what_has_no_greedy_completion_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    ours = {"rollout_func": changes.pop("rollout_func")} if "rollout_func" in changes else {}

    def trainer_class(**arguments: Any) -> Any:
        return CreditGRPOTrainer(**arguments, **ours)

    with pytest.raises(ValueError, match=message):
        make_trainer(trainer_class, tmp_path, reward_funcs=TWO_REWARDS, advantage="remax", **changes)


def test_a_run_with_images_samples_and_counts_greedy_completions(layout: Layout, tmp_path: Path):
    study = load_short(tmp_path, rl__max_steps=2, rl__advantage={"kind": "remax"})
    run_rl(study, layout, policy_of(study))
    rows = rollouts(layout)
    shards = sorted(layout.rollouts("runs/base/seed1").glob("*.parquet"))
    assert len(shards) == 2
    assert {"greedy_reward", "greedy_token_count"} <= set(pq.read_schema(shards[0]).names)
    assert [row["greedy_token_count"] > 0 for row in rows] == [index % 4 == 0 for index in range(16)]
    assert proof(layout)["generated_tokens"] == sum(row["token_count"] + row["greedy_token_count"] for row in rows)
    for row in rows:
        assert row["advantage"] == pytest.approx(row["reward"] - row["greedy_reward"], abs=1e-6)
    assert len({row["greedy_reward"] for row in rows[:4]}) == 1

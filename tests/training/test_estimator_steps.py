"""One optimizer step with each estimator moves the weights as the policy gradient of its advantages says."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlassay.advantages import pass_at_k, reinforce_pp
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.critic import CriticOptions
from rlassay.training.rollouts import Rollout
from tests.training.tiny_lm import make_trainer, model, weights

REWARDS = (1.0, 0.0, 0.0, 0.0, 3.0, 1.0, 1.0, 3.0)
LEARNING_RATE = 0.5


def whitened(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std()


def length_weighted(rewards: Tensor, lengths: Tensor) -> Tensor:
    baselines = (rewards * lengths).view(2, 4).sum(1) / lengths.view(2, 4).sum(1)
    return rewards - baselines.repeat_interleave(4)


# Means 1/4 and 2. A third of a group's deviation is that of the mean of the others.
CENTRED = torch.tensor([3.0, -1.0, -1.0, -1.0, 4.0, -4.0, -4.0, 4.0]) / 4
SCALED = torch.tensor([4.0] * 4 + [0.5] * 4)
# Pairs: of 6, three with the 1 (deviation 1/2), five with a 3 (mean 8/3, deviation 2 * sqrt(5) / 6).
PAIRS = torch.tensor([1 / 2, -1 / 6, -1 / 6, -1 / 6, 1 / 3, -1 / 3, -1 / 3, 1 / 3])
PAIRS = PAIRS / torch.tensor([0.5] * 4 + [5**0.5 / 3] * 4)
# Two prompts: v = 1/16 from the first (variance 1/4, over 4) for the second, 1/3 the other way; s = 0: lambda = 1/2.
OTHERS = torch.tensor([0.0, 1 / 3, 1 / 3, 1 / 3, 5 / 3, 7 / 3, 7 / 3, 5 / 3])
SHRUNK = torch.tensor(REWARDS) - (OTHERS + torch.tensor([2.0] * 4 + [0.25] * 4)) / 2

CASES: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "rloo": ("rloo", lambda lengths: 4 / 3 * CENTRED),
    "reinforce_pp": ("reinforce_pp", lambda lengths: whitened(torch.tensor(REWARDS))),
    "reinforce_pp, group": (partial(reinforce_pp, baseline="group"), lambda lengths: whitened(CENTRED)),
    "opo": ("opo", lambda lengths: length_weighted(torch.tensor(REWARDS), lengths)),
    "max_rl": ("max_rl", lambda lengths: CENTRED * SCALED),
    "pass_at_k": (partial(pass_at_k, k=2), lambda lengths: PAIRS),
    "shrinkage": ("shrinkage", lambda lengths: SHRUNK),
    "remax": ("remax", lambda lengths: torch.tensor(REWARDS) - torch.tensor([0.25] * 4 + [2.0] * 4)),
    "gae": (None, lambda lengths: weighted_whitened(torch.tensor(REWARDS), lengths)),
}


def weighted_whitened(values: Tensor, lengths: Tensor) -> Tensor:
    """With values of 0 and no discount each token's advantage is its completion's reward, whitened over the tokens."""
    of_tokens = torch.repeat_interleave(values, lengths.long())
    return (values - of_tokens.mean()) / of_tokens.std()


def sampled_or_greedy(completions: list[Any], **columns: Any) -> list[float]:
    """The rewards of the samples; with one completion per prompt, the mean rewards for the greedy ones."""
    return list(REWARDS) if len(completions) == 8 else [0.25, 2.0]


@pytest.mark.parametrize("name", CASES)
def test_the_weights_move_along_the_policy_gradient(name: str, tmp_path: Path):
    advantage, expected = CASES[name]
    ours: dict[str, Any] = {"advantage": advantage}
    if name == "gae":
        ours = {"critic": CriticOptions(lam=1.0)}
    before, after, output, rollout = one_step(tmp_path, **ours)
    lengths = output["completion_mask"].sum(dim=1)
    advantages = expected(lengths.float())
    assert len(set(lengths.tolist())) > 1
    assert rollout.advantages.tolist() == pytest.approx(advantages.tolist(), abs=2e-3)
    gradient = policy_gradient(output, advantages)
    for parameter, start in before.items():
        moved = after[parameter] - start
        torch.testing.assert_close(moved, LEARNING_RATE * gradient[parameter], atol=2e-5, rtol=5e-3)
    assert max((after[parameter] - start).abs().max() for parameter, start in before.items()) > 1e-3


def one_step(folder: Path, **ours: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any], Rollout]:
    """The weights before and after one step of plain gradient descent, its inputs, and its record."""
    settings: dict[str, Any] = {"max_steps": 1, "reward_funcs": sampled_or_greedy, "optim": "sgd"}
    settings |= {"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "max_grad_norm": 1e6}
    trainer = make_trainer(CreditGRPOTrainer, folder, **settings, **ours)
    rollouts: list[Rollout] = []
    outputs: list[dict[str, Any]] = []
    trainer.xp_listeners.append(rollouts.append)
    made = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: outputs.append(made(inputs)) or outputs[-1]
    before = weights(trainer)
    trainer.train()
    return before, weights(trainer), outputs[0], rollouts[0]


def policy_gradient(output: dict[str, Any], advantages: Tensor) -> dict[str, Tensor]:
    """Gradient of the mean over all tokens of A log p, by a forward pass of our own."""
    policy = model()
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    seen = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    length, mask = output["completion_ids"].shape[1], output["completion_mask"]
    logits = policy(input_ids=ids, attention_mask=seen).logits[:, -length - 1 : -1]
    logps = logits.log_softmax(dim=-1).gather(2, output["completion_ids"][..., None])[..., 0]
    (advantages[:, None] * logps * mask).sum().div(mask.sum()).backward()
    return {name: parameter.grad for name, parameter in policy.named_parameters() if parameter.grad is not None}

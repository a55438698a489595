"""`common_random_numbers`: arms of one seed meet the same noise of sampling at every step, however much they drew."""

from pathlib import Path
from typing import Any

import torch

from rlassay.training import CreditGRPOTrainer
from tests.training.tiny_lm import make_trainer

SHORT, LONG = 3, 7


def sampled(folder: Path, length: int, **changes: Any) -> list[list[list[str]]]:
    """Words of each completion, by step, of a policy that learns nothing."""
    settings = {"learning_rate": 0.0, "max_completion_length": length, **changes}
    trainer = make_trainer(CreditGRPOTrainer, folder, **settings)
    steps: list[list[list[str]]] = []
    trainer.xp_listeners.append(lambda rollout: steps.append([text.split() for text in rollout.completions]))
    trainer.train()
    return steps


def common(short: list[list[list[str]]], long: list[list[list[str]]]) -> list[bool]:
    """By step, whether the long completions begin as the short ones; words alone, since padding is none."""
    return [all(b[: len(a)] == a for a, b in zip(*step, strict=True)) for step in zip(short, long, strict=True)]


def test_an_arm_that_drew_fewer_numbers_still_meets_the_same_noise(tmp_path: Path):
    # The two draw another number of tokens at each step. One after the other, their numbers part after the first step.
    apart = common(sampled(tmp_path, SHORT), sampled(tmp_path, LONG))
    together = common(*(sampled(tmp_path, length, common_random_numbers=True) for length in (SHORT, LONG)))

    assert apart == [True, False, False]
    assert together == [True, True, True]


def test_steps_and_seeds_have_numbers_of_their_own(tmp_path: Path):
    once = sampled(tmp_path, LONG, common_random_numbers=True)
    again = sampled(tmp_path, LONG, common_random_numbers=True)
    other = sampled(tmp_path, LONG, common_random_numbers=True, seed=12)

    assert once == again
    assert len({str(step) for step in (*once, *other)}) == 6


def test_the_trainers_own_random_state_is_left_as_it_was(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, common_random_numbers=True)
    before = torch.get_rng_state()

    with trainer.xp_sampling.seeds.common(trainer):
        torch.rand(3)

    assert torch.equal(torch.get_rng_state(), before)

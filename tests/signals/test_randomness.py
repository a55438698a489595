import pytest
import torch

from rlassay.signals import draws
from rlassay.signals.randomness import generator


def test_a_completion_draws_the_same_numbers_in_any_batch_and_of_any_length():
    together = draws(3, 10, ["a", "a", "b"], [0, 1, 0], 7)

    assert together.shape == (3, 7)
    assert torch.equal(together[[2, 0]], draws(3, 10, ["b", "a"], [0, 0], 7))
    assert torch.equal(together[:, :5], draws(3, 10, ["a", "a", "b"], [0, 1, 0], 5))


OTHERS = [
    (4, 10, "a", 0, "x"),
    (3, 11, "a", 0, "x"),
    (3, 10, "b", 0, "x"),
    (3, 10, "a", 1, "x"),
    (3, 10, "a", 0, "y"),
    (31, 0, "a", 0, "x"),
]


@pytest.mark.parametrize("other", OTHERS)
def test_seed_step_prompt_sample_and_purpose_all_matter(other: tuple[int, int, str, int, str]):
    assert generator(3, 10, "a", 0, "x").random() != generator(*other).random()


def test_numbers_are_those_of_every_machine():
    # Written down once: a change would change every run.
    assert generator(3, 10, "a", 0, "draws").integers(0, 10**6, 3).tolist() == [912208, 612931, 671023]


def test_numbers_are_even_over_the_unit_interval():
    numbers = draws(1, 1, [str(index) for index in range(100)], [0] * 100, 1000)

    assert numbers.dtype == torch.float32
    assert 0 <= float(numbers.min()) < 1e-3
    assert 1 - 1e-3 < float(numbers.max()) < 1
    # Standard error of a mean of 100,000: 0.0009.
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.005)

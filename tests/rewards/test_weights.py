import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards.weights import early_steps, weight_at, weight_phases


@pytest.mark.parametrize(
    ("max_steps", "warmup_steps", "expected"),
    [
        (200, 10, 10),  # the warm-up itself
        (200, 0, 20),
        (39, 0, 3),  # int(3.9)
        (9, 0, 0),
    ],
)
def test_the_early_phase_is_the_warm_up_or_a_tenth_of_the_steps(max_steps, warmup_steps, expected):
    assert early_steps(max_steps, warmup_steps) == expected


def weights(phases, max_steps):
    return [weight_at(phases, step / max_steps) for step in range(max_steps)]


def test_two_phases_change_exactly_at_their_step():
    # 2.5 after an early 1: three early steps of 30.
    phases = weight_phases(2.5, 1.0, (), early_steps(30, 0) / 30)
    assert weights(phases, 30) == [1.0] * 3 + [2.5] * 27


@given(max_steps=st.integers(1, 2000), warmup_steps=st.integers(0, 50))
def test_the_early_phase_ends_at_its_step_whatever_the_number_of_steps(max_steps, warmup_steps):
    early = early_steps(max_steps, warmup_steps)
    phases = weight_phases(0.5, 2.0, (), early / max_steps)
    found = weights(phases, max_steps)
    assert found == [2.0 if step < early else 0.5 for step in range(max_steps)]


def test_a_schedule_applies_its_last_phase_that_has_started():
    phases = weight_phases(1.0, None, ((0.3, 2.0), (0.7, 0.0)), 0.1)
    assert weights(phases, 10) == [1.0] * 3 + [2.0] * 4 + [0.0] * 3


def test_a_single_weight_holds_for_all_steps():
    assert weights(weight_phases(0.25, None, (), 0.1), 5) == [0.25] * 5

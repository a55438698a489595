from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards import REWARDS
from tests.rewards.make import completion

soft_overlong = REWARDS["soft_overlong"]


def penalties(lengths, **options):
    return soft_overlong([completion(token_count=length) for length in lengths], **options)


def test_vectors_of_the_paper():
    # L = 100, C = 20: free up to 80; (80 - 90) / 20 = -0.5; (80 - 100) / 20 = -1; -1 beyond.
    assert penalties([0, 80, 85, 90, 100, 110], max_completion_length=100, cache=20) == [0, 0, -0.25, -0.5, -1, -1]


def test_without_a_cache_the_penalty_is_a_step():
    assert penalties([99, 100, 101], max_completion_length=100, cache=0) == [0, 0, -1]


def test_a_cache_as_long_as_the_limit_charges_every_token():
    assert penalties([0, 1, 4, 5], max_completion_length=4, cache=4) == [0, -0.25, -1, -1]


@given(st.integers(1, 60), st.data())
def test_it_never_rises_with_length_and_stays_between_minus_one_and_zero(limit, data):
    cache = data.draw(st.integers(0, limit))
    values = penalties(range(limit + 3), max_completion_length=limit, cache=cache)
    assert values == sorted(values, reverse=True)
    assert values[0] == 0
    assert values[-1] == -1

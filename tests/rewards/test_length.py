import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards import REWARDS
from tests.rewards.make import completion, row

soft_overlong = REWARDS["soft_overlong"]
accuracy_conditioned_length = REWARDS["accuracy_conditioned_length"]
length_similarity = REWARDS["length_similarity"]


def penalties(lengths, **options):
    return soft_overlong([completion(token_count=length) for length in lengths], **options)


def test_values_of_the_paper():
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


def conditioned(lengths, text="Answer: A", limit=10, choices=("3", "7")):
    return accuracy_conditioned_length(
        [completion(text, token_count=length, of=row(choices=choices)) for length in lengths],
        max_completion_length=limit,
    )


def test_a_wrong_answer_is_penalised_for_its_length():
    # L = 10: L0 = 2, L1 = 5; 3 tokens are a third of the way: 1 - 1/6.
    assert conditioned([1, 2, 3, 4, 5, 9]) == pytest.approx([1, 1, 5 / 6, 4 / 6, 0.5, 0.5])


def test_a_right_answer_and_a_row_without_choices_have_no_penalty():
    assert conditioned([1, 9], text="Answer: B") == [1, 1]
    assert conditioned([1, 9], choices=()) == [1, 1]


def test_equal_bounds_give_a_step():
    assert conditioned([0, 1, 2], limit=1) == [1, 0.5, 0.5]  # L0 = L1 = 0


def similarity(text, reference, **options):
    return length_similarity([completion(text, of=row(reference, choices=()))], **options)[0]


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("one two", "one two three four", 0.5),
        ("one two three four", "one two", 0.5),
        ("a - b", "x y z", 1.0),  # a dash between blanks counts, as in the source
        ("", "one", 0.0),
        ("one", " ", 0.0),
        ("", "", 0.0),
        ("今天天气", "今天天气很好啊啊", 0.5),  # 4 of 8 characters
        ("今天。", "今天", 1.0),
        ("кот спит", "кот спит на окне", 0.5),
        ("Qwen很好", "好好好", 1.0),
    ],
)
def test_similarity_in_words_of_any_script(text, reference, expected):
    assert similarity(text, reference) == expected


@given(st.text(max_size=30), st.text(max_size=30), st.floats(0.1, 4))
def test_similarity_is_scaled_and_symmetric(text, reference, scale):
    one = similarity(text, reference, scale=scale)
    assert 0 <= one <= scale
    if text.strip() and reference.strip():
        assert one == similarity(reference, text, scale=scale) > 0

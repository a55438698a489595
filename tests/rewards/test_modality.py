import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards import REWARDS
from tests.rewards.make import completion

modality_balance = REWARDS["modality_balance"]
vision_gain = REWARDS["vision_gain"]
POSITIVE = st.floats(1e-3, 1e3)


def group(values, signal="modality_dominance/all", texts=()):
    texts = texts or ["" for _ in values]
    signals = [{} if value is None else {signal: value} for value in values]
    return [completion(text, signals=measured) for text, measured in zip(texts, signals, strict=True)]


def balance(*values, **options):
    return modality_balance(group(values, "modality_dominance/late"), **options)


def gain(values, **options):
    return vision_gain(group(values), **options)


def test_balance_vectors():
    # R = 2: b(1) = 1, b(sqrt 2) = 1 - 1/2, b(2) = 0; r = 2 b - 1.
    values = balance(1.0, math.sqrt(2), 1 / math.sqrt(2), 2.0, 0.5, 10.5, 0.01)
    assert values == pytest.approx([1, 0, 0, -1, -1, -1, -1], abs=1e-12)


def test_a_wider_ratio_separates_values_that_saturate_at_two():
    # R = 16: ln 4 / ln 16 = 1/2 -> 0; ln 8 / ln 16 = 3/4 -> -1/2.
    assert balance(4.0, 8.0, ratio=16.0) == pytest.approx([0, -0.5], abs=1e-12)
    assert balance(4.0, 8.0) == [-1, -1]


def test_a_missing_signal_gives_none_and_an_invalid_one_is_neutral():
    assert balance(None, 0.0, -1.0, math.inf, math.nan) == [None, 0, 0, 0, 0]
    assert modality_balance(group([1.0], "modality_dominance/all")) == [None]
    assert modality_balance(group([1.0], "other"), signal="other") == [1.0]


@given(POSITIVE, st.floats(1.1, 100))
def test_balance_is_symmetric(value, ratio):
    one, other = balance(value, 1 / value, ratio=ratio)
    assert one == pytest.approx(other, abs=1e-9)
    assert -1 <= one <= 1


def test_quantile_vector():
    # n = 8: q_low = s[2] = 14, q_high = s[6] = 50, spread 36; (50 - 20) / 36 = .8333, (50 - 30) / 36 = .5556, ...
    values = gain([10.0, 12.0, 14.0, 20.0, 30.0, 40.0, 50.0, 60.0])
    assert values == pytest.approx([1, 1, 1, 30 / 36, 20 / 36, 10 / 36, 0, 0])


def test_deciles_from_ten_on():
    # n = 10: q_low = s[1] = 20, q_high = s[9] = 100; (100 - 60) / 80 = .5
    values = gain([10.0 * i for i in range(1, 11)])
    assert values == pytest.approx([1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0], abs=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        [10.0, 60.0],  # fewer than three
        [1.0, 2.0, 3.0, 4.0, 5.0],  # 4 - 2 < 5
        [100.0, 101.0, 108.0, 109.0],  # s[1] = 101, s[3] = 109: 8 < 0.1 s[2] = 10.8
        [7.0, 7.0, 7.0],
        [10.0, None, math.nan, 60.0],
    ],
)
def test_a_group_without_spread_is_neutral(values):
    assert gain(values) == [0.5 for _ in values]
    assert gain(values, hard_negative=True) == [0.0 for _ in values]


def test_min_spread_can_be_lowered_for_small_models():
    # s[1] = 2, s[3] = 4, spread 2.
    assert gain([1.0, 2.0, 3.0, 4.0, 5.0], min_spread=0.0) == pytest.approx([1, 1, 0.5, 0, 0])
    assert gain([7.0, 7.0, 7.0], min_spread=0.0) == [0.5, 0.5, 0.5]


def test_an_unmeasured_completion_is_neutral_and_an_unmeasured_group_gives_none():
    # measured 10, 20, 30: q_low = s[0] = 10, q_high = s[2] = 30
    assert gain([10.0, None, 20.0, 30.0, 0.0]) == pytest.approx([1, 0.5, 0.5, 0, 0.5])
    assert gain([None, None]) == [None, None]
    assert gain([]) == []


def test_hard_negative_pays_right_choices_only():
    # As above without the shift: 1 - .5, 0 - .5; wrong choices 0; statistics over all.
    texts = ["Answer: B", "Answer: A", "Answer: B", "Answer: A"]
    measured = [10.0, 20.0, 60.0, 70.0]  # s[1] = 20, s[3] = 70: (70 - 60) / 50 = .2
    assert vision_gain(group(measured, texts=texts), hard_negative=True) == pytest.approx([0.5, 0, -0.3, 0])
    assert vision_gain(group(measured, texts=["Answer: B", *texts[1:2] * 3]), hard_negative=True) == [0, 0, 0, 0]


def test_tanh_vector():
    # median 3, |v - 3| = 2 1 0 1 2, MAD 1: z = 2/1.4826 = 1.349, 0.6745, 0, ...
    expected = [0.5 * math.tanh(z / 1.4826) for z in (2, 1, 0, -1, -2)]
    assert gain([1.0, 2.0, 3.0, 4.0, 5.0], form="tanh") == pytest.approx(expected, abs=1e-7)
    wide = [0.5 * math.tanh(z / 1.4826 / 2) for z in (2, 1, 0, -1, -2)]
    assert gain([1.0, 2.0, 3.0, 4.0, 5.0], form="tanh", sigma=2.0) == pytest.approx(wide, abs=1e-7)
    assert gain([4.0], form="tanh") == [0.0]
    assert gain([4.0, 4.0, 9.0], form="tanh") == [0.0, 0.0, 0.0]  # MAD 0
    assert gain([1.0, None, 2.0], form="tanh")[1] == 0.0


@given(st.lists(st.one_of(st.none(), POSITIVE), max_size=20), st.sampled_from(["quantile", "tanh"]))
def test_less_text_dominance_never_earns_less(values, form):
    gains = gain(values, form=form, min_spread=0.0)
    pairs = sorted((value, earned) for value, earned in zip(values, gains, strict=True) if value is not None)
    assert [earned for _, earned in pairs] == sorted((earned for _, earned in pairs), reverse=True)
    assert all(-0.5 <= earned <= 1 for _, earned in pairs)

"""Numbers as readers see them; expected texts written by hand."""

import pytest

from rlassay.report.numbers import Estimate
from rlassay.report.typeset import (
    correlations,
    duration,
    failures,
    interval,
    number,
    one_line,
    printable,
    probability,
    size,
    weights,
    with_interval,
)


@pytest.mark.parametrize(
    ("value", "unit", "signed", "expected"),
    [
        (0.4321, "share", False, "43.2"),
        (-0.12, "share", True, "−12.0"),
        (0.081, "share", True, "+8.1"),
        (-0.0001, "share", True, "0.0"),  # rounds to nothing: no sign
        (0.0, "value", True, "0.000"),
        (9.46, "tokens", False, "9.5"),
        (-0.00049, "nats", False, "0.000"),
        (-0.0006, "nats", False, "−0.001"),
        (None, "share", True, "–"),
    ],
)
def test_number(value, unit, signed, expected):
    assert number(value, unit, signed) == expected


def test_interval_and_size():
    shown = Estimate(mean=0.4, low=0.37, high=0.43, num_seeds=3, num_items=1400, covers="seeds and items")
    assert interval(shown, "share") == "37.0 to 43.0"
    assert size(shown) == "3 × 1,400"
    assert interval(shown.model_copy(update={"low": None}), "share") == ""
    assert with_interval(0.4, shown, "share") == "40.0  [37.0 to 43.0]"
    assert with_interval(0.4, shown.model_copy(update={"covers": "items"}), "share") == "40.0  [37.0 to 43.0]†"
    assert with_interval(0.4, shown.model_copy(update={"low": None}), "share") == "40.0"


def test_probability_is_never_nothing():
    shown = [probability(value) for value in (0.0, 0.00099, 0.0414, 1.0)]
    assert shown == ["< 0.001", "< 0.001", "= 0.041", "= 1.000"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (59.4, "59.4 s"),
        (61.5, "1 min 02 s"),
        (3599.7, "1 h 00 min"),
        (7500.0, "2 h 05 min"),
        (360000.0, "100 h 00 min"),
    ],
)
def test_duration(seconds, expected):
    assert duration(seconds) == expected


def test_text_that_no_file_can_carry_is_replaced():
    assert printable("a\x00b\ud800c\uffff\n\t😀") == "a\ufffdb\ufffdc\ufffd\n\t😀"
    assert one_line("two\nlines\x07") == "two lines\ufffd"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"


def test_weights_over_training():
    assert weights(((0.0, 0.5),)) == "0.5"
    assert weights(((0.0, 1.0), (0.1, -2.5))) == "1, from 10 % on −2.5"


def test_correlations_begin_with_the_strongest_and_leave_out_the_undefined():
    assert correlations({"form": 0.125, "other": None, "length": -0.31}) == "length −0.31, form +0.12"
    assert correlations({"other": None}) == correlations({}) == "–"


def test_failures_by_kind():
    assert failures({"timeout": 1200, "not_finite": 1}) == "1,200 timeout, 1 not finite"
    assert failures({}) == "–"

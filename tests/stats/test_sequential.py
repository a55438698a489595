"""Local levels against published boundaries and a simulated Brownian motion; p-values over looks."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

from rlassay.stats import SequentialTest, local_levels

TEST = SequentialTest((3, 5, 7, 9))


def obrien_fleming(fraction: float, level: float) -> float:
    """Lan and DeMets' function, one-sided."""
    return float(2 * ndtr(ndtri(level / 2) / fraction**0.5))


def test_levels_are_the_published_ones_of_obrien_fleming():
    bounds = -ndtri(local_levels((0.2, 0.4, 0.6, 0.8, 1.0), 0.025, obrien_fleming))

    # Jennison and Turnbull (2000), Lan-DeMets spending at two-sided 0.05: 4.877, 3.357, 2.680, 2.290, 2.031.
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=6e-4)


def test_one_look_is_tested_at_the_whole_level():
    assert local_levels((1.0,), 0.025) == pytest.approx([0.025])
    assert SequentialTest((4,)).p_value([0.03]) == pytest.approx(0.03, rel=1e-3)


def test_two_looks_agree_with_the_bivariate_normal_distribution():
    first, second = -ndtri(local_levels((0.25, 1.0), 0.04))

    # a(1/4) = 0.04 / 16 at the first look; both bounds together let 0.04 through. Correlation sqrt(1/4).
    both_below = multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([first, second])
    assert ndtr(-first) == pytest.approx(0.0025)
    assert 1 - both_below == pytest.approx(0.04, rel=1e-4)


def test_a_path_without_drift_crosses_as_often_as_was_spent():
    rng, fractions = np.random.default_rng(3), np.array([0.3, 0.5, 0.8, 1.0])
    bounds = -ndtri(local_levels(tuple(fractions), 0.1))
    steps = rng.normal(size=(200_000, 4)) * np.sqrt(np.diff(fractions, prepend=0))

    crossed = np.maximum.accumulate(steps.cumsum(axis=1) / np.sqrt(fractions) > bounds, axis=1).mean(axis=0)

    assert crossed == pytest.approx(0.1 * fractions**2, abs=0.003)


def test_the_interval_and_the_p_value_agree_at_every_look():
    for look in range(4):
        p_values = [1.0] * look + [1 - TEST.confidence(look, 0.05)]
        assert TEST.p_value(p_values) == pytest.approx(0.05, rel=2e-3)
        assert TEST.p_value([p_values[-1] * 0.9] if look == 0 else [*p_values[:-1], p_values[-1] * 0.9]) < 0.05


def test_later_looks_can_lower_a_p_value_and_never_raise_it():
    looks = [TEST.p_value(found) for found in ([0.2], [0.2, 0.004], [0.2, 0.004, 0.9], [0.2, 0.004, 0.9, 0.0001])]

    assert looks == sorted(looks, reverse=True)
    assert looks[1] == looks[2]
    assert looks[1] > 0.004  # looking twice costs something


def test_smaller_overall_levels_have_smaller_local_levels():
    levels = np.array([local_levels(TEST.fractions, level) for level in (1e-6, 1e-3, 0.01, 0.02, 0.1)])

    assert np.all(np.diff(levels, axis=0) > 0)


def test_a_one_sided_p_value_is_half_of_the_two_sided():
    assert 2 * TEST.p_value([0.3, 0.002], one_sided=True) == pytest.approx(TEST.p_value([0.6, 0.004]))


def test_a_look_without_a_test_decides_nothing():
    assert TEST.p_value([float("nan"), 0.01]) == TEST.p_value([1.0, 0.01])
    assert np.isnan(TEST.p_value([float("nan")]))


@pytest.mark.parametrize(
    ("fractions", "level", "problem"),
    [((0.5,), 0.05, "ascend to 1"), ((0.5, 0.4, 1.0), 0.05, "ascend to 1"), ((1.0,), 0.6, "at most 0.5")],
)
def test_plans_that_make_no_sense_are_refused(fractions: tuple[float, ...], level: float, problem: str):
    with pytest.raises(ValueError, match=problem):
        local_levels(fractions, level)

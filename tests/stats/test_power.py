"""Power of a planned comparison: against noncentral t, against simulation with the report's own test, and by hand."""

import numpy as np
import pytest
from scipy import stats

from rlassay.stats import (
    Deviations,
    PlannedTest,
    deviations_of,
    items_needed,
    minimum_detectable_effect,
    paired_difference,
    power_of,
    seeds_needed,
)


def student(size: int, deviation: float, effect: float, alpha: float = 0.05) -> float:
    """The power of a one-sample t test, from the noncentral t distribution."""
    critical, shift = stats.t.ppf(1 - alpha / 2, size - 1), effect * size**0.5 / deviation
    return float(stats.nct.sf(critical, size - 1, shift) + stats.nct.sf(critical, size - 1, -shift))


@pytest.mark.parametrize(("num_items", "power"), [(5, 0.8), (40, 0.9), (400, 0.5)])
def test_without_variance_between_seeds_it_is_students_test_over_items(num_items: int, power: float):
    effect = minimum_detectable_effect(3, num_items, 0.0, 0.3, power)
    assert student(num_items, 0.3, effect) == pytest.approx(power, abs=1e-3)


@pytest.mark.parametrize("num_seeds", [2, 3, 7])
def test_without_variance_between_items_it_is_students_test_over_seeds(num_seeds: int):
    effect = minimum_detectable_effect(num_seeds, 50, 0.02, 0.0)
    assert student(num_seeds, 0.02, effect) == pytest.approx(0.8, abs=1e-3)
    strict = minimum_detectable_effect(num_seeds, 50, 0.02, 0.0, test=PlannedTest(confidence=0.99))
    assert student(num_seeds, 0.02, strict, 0.01) == pytest.approx(0.8, abs=1e-3)


def simulated_power(effect: float, size: tuple[int, int], deviations: Deviations, matched: bool) -> float:
    """The share of 1,500 simulated studies in which the report's test finds the effect."""
    rng, (num_seeds, num_items), found = np.random.default_rng(6), size, 0
    for _ in range(1500):
        shared = rng.normal(0, deviations.item_sd, num_items)
        arms = [
            share
            + rng.normal(0, deviations.seed_sd / 2**0.5, (num_seeds, 1))
            + rng.normal(0, deviations.pair_sd / 2**0.5, (num_seeds, num_items))
            for share in (effect + shared, 0.0)
        ]
        found += paired_difference(arms[0], arms[1], matched_seeds=matched).p_value < 0.05
    return found / 1500


@pytest.mark.parametrize("matched", [True, False])
@pytest.mark.parametrize(("num_seeds", "num_items"), [(3, 60), (5, 31)])
def test_the_detectable_effect_is_found_at_the_promised_power(num_seeds: int, num_items: int, matched: bool):
    deviations = Deviations(seed_sd=0.02, item_sd=0.15, pair_sd=0.25)
    test = PlannedTest(pair_sd=0.25, matched_seeds=matched)
    effect = minimum_detectable_effect(num_seeds, num_items, 0.02, 0.15, test=test)
    # A standard error of 0.0103 at 0.8 and 1,500 draws; an effect 10 % off would have a power 0.07 to 0.1 off.
    assert simulated_power(effect, (num_seeds, num_items), deviations, matched) == pytest.approx(0.8, abs=0.03)


def test_the_numbers_needed_are_the_inverse_of_the_detectable_effect():
    test = PlannedTest(pair_sd=0.3, matched_seeds=False)
    effect = minimum_detectable_effect(6, 90, 0.03, 0.1, test=test)
    assert seeds_needed(effect, 90, 0.03, 0.1, test=test) == 6
    assert seeds_needed(0.999 * effect, 90, 0.03, 0.1, test=test) == 7
    assert items_needed(effect, 6, 0.03, 0.1, test=test) == 90
    assert items_needed(0.999 * effect, 6, 0.03, 0.1, test=test) == 91
    assert seeds_needed(100.0, 90, 0.03, 0.1) == items_needed(100.0, 6, 0.03, 0.1) == 2


def test_an_effect_that_the_items_or_the_seeds_hide_is_out_of_reach():
    # 25 items of deviation 0.5 leave a standard error of 0.1 however many seeds there are; and 2 seeds, 0.07.
    assert seeds_needed(0.2, 25, 0.1, 0.5) is None
    assert items_needed(0.2, 2, 0.1, 0.5) is None
    assert seeds_needed(0.4, 25, 0.1, 0.5) == 4
    assert minimum_detectable_effect(4, 25, 0.1, 0.5) <= 0.4 < minimum_detectable_effect(3, 25, 0.1, 0.5)


def test_more_of_anything_detects_less_and_more_noise_detects_more():
    least = minimum_detectable_effect(3, 100, 0.02, 0.2)
    assert minimum_detectable_effect(4, 100, 0.02, 0.2) < least
    assert minimum_detectable_effect(3, 101, 0.02, 0.2) < least
    assert minimum_detectable_effect(3, 100, 0.021, 0.2) > least
    assert minimum_detectable_effect(3, 100, 0.02, 0.21) > least
    assert minimum_detectable_effect(3, 100, 0.02, 0.2, 0.81) > least
    assert minimum_detectable_effect(3, 100, 0.02, 0.2, test=PlannedTest(pair_sd=0.1)) > least
    assert minimum_detectable_effect(3, 100, 0.2, 2.0) == pytest.approx(10 * least)


def test_the_power_of_no_effect_is_the_level_where_the_test_is_exact():
    deviations = Deviations(seed_sd=0.0, item_sd=1.0, pair_sd=0.0)
    assert power_of(0.0, 3, 9, deviations, PlannedTest()) == pytest.approx(0.05, rel=0.01)


def test_deviations_by_hand():
    # a - b = [[1, 2, 3], [2, 3, 7]]: MS_seeds = 6, MS_items = 6.5 and the residuals +-0.5, +-0.5, -+1 give MS_pairs =
    # 2 (0.25 + 0.25 + 1) / 2 = 1.5; so (6 - 1.5) / 3 = 1.5 between seeds and (6.5 - 1.5) / 2 = 2.5 between items.
    a = np.array([[1.0, 2.0, 3.0, np.nan], [2.0, 3.0, 7.0, 1.0]])
    b = np.zeros((2, 4))
    found = deviations_of(a, b)
    assert (found.seed_sd**2, found.item_sd**2, found.pair_sd**2) == pytest.approx((1.5, 2.5, 1.5))
    # Independent seeds: a shift of both arms leaves the difference alone, but the arms' seed means are now (1, 7), of
    # variance 18, and (-1, 3), of variance 8; less MS_pairs / 3 = 0.5.
    shift = np.array([[-1.0], [3.0]])
    apart = deviations_of(a + shift, b + shift, matched_seeds=False)
    assert apart.seed_sd**2 == pytest.approx(18 + 8 - 0.5)


def test_deviations_are_recovered_from_a_large_study():
    rng = np.random.default_rng(8)
    shape = (200, 300)
    a = rng.normal(0, 0.03, (200, 1)) + rng.normal(0, 0.2, (1, 300)) + rng.normal(0, 0.4, shape)
    found = deviations_of(a, rng.normal(0, 0.3, shape))
    assert (found.seed_sd, found.item_sd, found.pair_sd) == pytest.approx((0.03, 0.2, 0.5), rel=0.2)
    assert deviations_of(np.eye(2), 1 - np.eye(2)).seed_sd == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 5, 0.1, 0.1), "1 seeds x 5 items; expected at least two of each"),
        ((2, 5, -0.1, 0.1), "got seed_sd -0.1, item_sd 0.1, pair_sd 0; expected deviations of at least 0"),
        ((2, 5, 0.0, 0.0), "and one above 0"),
        ((2, 5, 0.1, 0.1, 1.0), "got power 1 at confidence 0.95; expected"),
        ((2, 5, 0.1, 0.1, 0.05), "a power between 1 - confidence and 1"),
    ],
)
def test_unusable_numbers_are_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        minimum_detectable_effect(*arguments)


def test_an_effect_of_nothing_and_a_study_without_pairs_are_refused():
    with pytest.raises(ValueError, match="effect is 0; expected a size above 0"):
        seeds_needed(0.0, 5, 0.1, 0.1)
    with pytest.raises(ValueError, match="1 seeds x 3 items have scores in both arms"):
        deviations_of(np.zeros((1, 3)), np.zeros((1, 3)))

"""What would decide, flips and improvement, from scores whose numbers are known by hand."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.verdicts import MARGIN, false_verdicts, outcomes_of
from rlassay.report.content import OtherMode
from rlassay.report.findings.answer import headline, modes_apart
from rlassay.report.findings.effects import flips, improvement, needed
from rlassay.report.tables import primary_column
from rlassay.report.typeset import quoted
from rlassay.report.verdicts import compare_with_baseline, compare_with_start, headline_of
from rlassay.stats import minimum_detectable_effect, probability_of_improvement
from rlassay.stats.power import PlannedTest, deviations_of
from tests.report.by_hand import hand_results

NUM_ITEMS = 60


def _scores(level: float, num_seeds: int = 3, entropy: int = 0, noise: float = 0.1) -> np.ndarray:
    return level + noise * np.random.default_rng(entropy).uniform(-1, 1, (num_seeds, NUM_ITEMS))


def test_prompts_won_and_lost_are_counted_by_the_majority_of_completions():
    # Two seeds; columns: won by far, won, lost, right in both, wrong in both, not scored.
    arm = np.array([[1.0, 0.5, 0.0, 1.0, 0.0, 1.0], [1.0, 0.5, 0.25, 0.75, 0.25, np.nan]])
    reference = np.array([[0.0, 0.25, 0.75, 1.0, 0.25, 0.0], [0.0, 0.5, 1.0, 1.0, 0.0, 0.0]])
    found = flips(arm, reference, ["a", "b", "c", "d", "e", "f"])
    assert (found.won, found.lost, found.both, found.neither) == (2, 1, 1, 1)
    assert (found.won_prompts, found.lost_prompts) == (("a", "b"), ("c",))
    # Three fair coins fall 2 : 1 or more unevenly always.
    assert found.p_value == 1.0


def test_mcnemar_counts_both_tails():
    arm = np.array([[1.0] * 6 + [0.0] + [1.0]])
    reference = np.array([[0.0] * 6 + [1.0] + [1.0]])
    found = flips(arm, reference, [str(place) for place in range(8)])
    # 6 : 1 among 7 coins: 2 (C(7,0) + C(7,1)) / 2^7.
    assert found.p_value == pytest.approx(2 * 8 / 128)
    assert len(found.won_prompts) == 5
    assert flips(arm, arm, [str(place) for place in range(8)]).p_value is None


def test_improvement_agrees_with_the_direct_count_and_lies_between_0_and_1():
    a, b = _scores(0.53), _scores(0.5, entropy=1)
    found = improvement(a, b, 0.95)
    assert found.mean == pytest.approx(probability_of_improvement(a, b), abs=1e-6)
    assert found.low is not None
    assert found.high is not None
    assert 0.5 < found.low < found.mean < found.high < 1
    assert improvement(b, a, 0.95).mean == pytest.approx(1 - found.mean, abs=1e-6)
    assert (found.num_seeds, found.num_items, found.covers) == (3, NUM_ITEMS, "seeds and items")


def test_improvement_with_other_numbers_of_seeds_has_no_interval():
    found = improvement(_scores(0.6, 2), _scores(0.5, 3, 1), 0.95)
    assert (found.low, found.high, found.covers) == (None, None, "nothing")


def test_needed_seeds_find_the_effect_and_one_fewer_do_not():
    rng = np.random.default_rng(3)
    a, b = (_scores(0.5, entropy=number) + rng.normal(0, 0.03, (3, 1)) for number in (1, 2))
    found = needed(a, b, 0.05, 0.05, matched_seeds=False)
    assert found is not None
    assert found.seeds is not None
    parts = deviations_of(a, b, matched_seeds=False)
    test = PlannedTest(pair_sd=parts.pair_sd, matched_seeds=False)

    def reaches(seeds: int) -> bool:
        return minimum_detectable_effect(seeds, NUM_ITEMS, parts.seed_sd, parts.item_sd, 0.8, test) <= 0.05

    assert reaches(found.seeds)
    assert not reaches(found.seeds - 1)
    assert found.detectable is not None
    assert found.detectable > 0.05  # three seeds are too few
    assert needed(a[:1], b[:1], 0.05, 0.05, matched_seeds=False) is None
    assert needed(np.full((3, 9), 0.5), np.full((3, 9), 0.5), 0.05, 0.05, matched_seeds=True) is None


@pytest.fixture(scope="module")
def declared():
    results = hand_results(
        {
            "sft": _scores(0.3, 1),
            "base": _scores(0.5, entropy=1, noise=0.02),
            "accuracy_only": _scores(0.51, entropy=2, noise=0.02),
            "format_only": _scores(0.5, entropy=3, noise=0.02) + np.array([[-0.05], [0.0], [0.05]]),
            "dr_grpo": _scores(0.5, entropy=4, noise=0.02),
        }
    )
    primary = results.study.primary.model_copy(update={"smallest_effect": 0.05})
    study = results.study.model_copy(update={"primary": primary})
    return replace(results, **({"study": study}))


def test_outcomes_with_a_declared_effect(declared):
    better, open_, equal = compare_with_baseline(declared, 0.95)
    assert [one.outcome for one in (better, open_, equal)] == ["better", "not resolved", "equivalent"]
    assert equal.answer == "changes accuracy by no more than 5 points compared with 'base'."
    assert equal.sentence.startswith("'dr grpo' has no effect as large as declared against 'base'")
    assert equal.equivalence is not None
    assert (equal.equivalence.margin, equal.takes) == (0.05, "")
    # A real difference that is too small to matter is named as both.
    assert better.answer.startswith("raises accuracy by 1 point compared with 'base'")
    assert better.answer.endswith(", by less than the 5 points that matter.")


def test_an_unresolved_arm_says_what_is_excluded_and_what_it_takes(declared):
    open_ = compare_with_baseline(declared, 0.95)[1]
    assert open_.difference is not None
    low, high = (f"{100 * (end or 0):+.1f}".replace("-", "−") for end in (open_.difference.low, open_.difference.high))
    assert open_.answer == (
        f"may raise or lower accuracy compared with 'base'; an effect beyond {low} to {high} points is excluded."
    )
    assert open_.needed is not None
    assert open_.takes.startswith("An effect of 5 points would be found in 80 % of studies with ")
    assert f"{open_.needed.seeds} seeds per arm instead of 3" in open_.takes


def test_the_headline_groups_the_arms(declared):
    assert headline_of(declared, compare_with_baseline(declared, 0.95)) == (
        "In accuracy, compared with 'base': 'accuracy only' helps; 'dr grpo' makes no difference larger than 5 points; "
        "'format only' is not resolved."
    )


def test_the_headline_counts_many_arms_of_one_outcome(declared):
    column = primary_column(declared)
    few = [(f"arm {i}", "not resolved") for i in range(4)]
    assert headline(few, "base", "accuracy", column, None) == (
        "In accuracy, compared with 'base': 'arm 0', 'arm 1', 'arm 2' and 'arm 3' are not resolved."
    )
    many = [*few, ("arm 4", "not resolved"), ("other", "better")]
    assert headline(many, "base", "accuracy", column, None) == (
        "In accuracy, compared with 'base': 'other' helps; 5 arms are not resolved."
    )


def test_without_a_declared_effect_nothing_is_called_equivalent(declared):
    primary = declared.study.primary.model_copy(update={"smallest_effect": None})
    study = declared.study.model_copy(update={"primary": primary})
    found = compare_with_baseline(replace(declared, **({"study": study})), 0.95)
    assert [one.outcome for one in found] == ["better", "not resolved", "not resolved"]
    assert {(one.equivalence, one.needed, one.takes) for one in found} == {(None, None, "")}


def test_planted_effects_give_few_false_verdicts():
    # 40 studies per case; with a true rate of 5 % more than 7 false ones have a probability of 0.1 %.
    rng = np.random.default_rng(8)
    for effects in ((0.0, 0.0, 0.0), (MARGIN, -MARGIN, MARGIN)):
        false = sum(false_verdicts(outcomes_of(rng, effects, (3, 60, 0.015)), effects) for _ in range(40))
        assert max(false) <= 7


def test_modes_that_contradict_what_rl_did_are_one_sentence_for_all_arms_alike():
    start = np.full((1, NUM_ITEMS), 0.5)
    results = hand_results({"base": _scores(0.7), "accuracy_only": _scores(0.8, entropy=1), "sft": start})
    gains = compare_with_start(results, 0.95)
    column, labels = primary_column(results), {key: row.label for key, row in results.rows.items()}
    assert modes_apart(gains, labels, column) == []

    falls = {"base": -0.03, "accuracy_only": -0.041}
    opposed = [
        gain.model_copy(
            update={
                "other_modes": tuple(
                    OtherMode(
                        column=f"test/choice_accuracy/{mode}",
                        title=f"accuracy, {mode}",
                        difference=gain.difference.model_copy(update={"effect": falls[gain.arm]}),
                        by_seed=(),
                        opposed=mode == "greedy",
                    )
                    for mode in ("greedy", "pass@8")
                )
            }
        )
        for gain in gains
        if gain.arm in falls
    ]
    low, high = sorted(100 * gain.difference.effect for gain in opposed)
    (sentence,) = modes_apart(opposed, labels, column)
    assert sentence == (
        f"Compared with the policy before RL, {quoted(column.title)} rises by {low:.1f} to {high:.1f} points in "
        f"{quoted(labels['base'])} and {quoted(labels['accuracy_only'])}, but 'accuracy, greedy' falls by 3.0 to 4.1 "
        "points."
    )
    (alone,) = modes_apart(opposed[:1], labels, column)
    assert alone.endswith("but 'accuracy, greedy' falls by 3 points.")

"""Verdicts from scores with known differences: outcome, numbers and sentence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlassay.config.model import Reference
from rlassay.config.settings import Settings
from rlassay.report.gather import Results, gather
from rlassay.report.tables import primary_column, scores_of
from rlassay.report.verdicts import (
    compare_with_baseline,
    compare_with_references,
    compare_with_start,
    start_note,
    start_of,
)
from rlassay.stats import holm, paired_difference
from tests.report.by_hand import hand_results
from tests.report.synthetic import Size, write_synthetic

NUM_ITEMS = 60


def _accuracy(level: float, num_seeds: int = 3, noise: float = 0.02, entropy: int = 0) -> np.ndarray:
    rng = np.random.default_rng(entropy)
    shared = np.random.default_rng(99).choice([0.0, 0.25, 0.5], NUM_ITEMS)
    return shared + level + noise * rng.choice([-1.0, 1.0], (num_seeds, NUM_ITEMS))


@pytest.fixture(scope="module")
def results() -> Results:
    return hand_results(
        {
            "sft": _accuracy(0.0, 1),
            "base": _accuracy(0.1, entropy=1),
            "accuracy_only": _accuracy(0.2, entropy=2),
            "format_only": _accuracy(0.03, entropy=3),
            "dr_grpo": _accuracy(0.1, entropy=4),
        }
    )


def test_outcomes(results: Results):
    verdicts = {one.arm: one for one in compare_with_baseline(results, 0.95)}
    assert {arm: one.outcome for arm, one in verdicts.items()} == {
        "accuracy_only": "better",
        "format_only": "worse",
        "dr_grpo": "not resolved",
    }
    assert verdicts["format_only"].sentence.startswith("'format only' is worse than 'base': −")


def test_numbers_are_the_paired_difference_corrected_over_the_family(results: Results):
    arms = ["accuracy_only", "format_only", "dr_grpo"]
    expected = [
        paired_difference(_accuracy(level, entropy=entropy), _accuracy(0.1, entropy=1), matched_seeds=False)
        for level, entropy in ((0.2, 2), (0.03, 3), (0.1, 4))
    ]
    corrected = holm([one.p_value for one in expected])
    for arm, one, p_holm in zip(arms, expected, corrected, strict=True):
        found = next(verdict.difference for verdict in compare_with_baseline(results, 0.95) if verdict.arm == arm)
        assert found is not None
        assert (found.effect, found.low, found.high) == pytest.approx((one.mean, one.low, one.high), abs=1e-6)
        assert found.p_holm == pytest.approx(p_holm, rel=1e-5)
        assert (found.family_size, found.num_seeds, found.num_items) == (3, 3, NUM_ITEMS)


def test_the_sentence_has_effect_interval_p_seeds_and_prompts(results: Results):
    verdict = compare_with_baseline(results, 0.95)[0]
    numbers = verdict.difference
    assert numbers is not None
    assert numbers.low is not None
    assert numbers.high is not None
    assert verdict.sentence == (
        f"'accuracy only' beats 'base': +{100 * (numbers.effect or 0):.1f} percentage points in accuracy, avg@4 "
        f"(95% interval +{100 * numbers.low:.1f} to +{100 * numbers.high:.1f}; Holm p < 0.001; 3 seeds × 60 prompts)."
    )


def test_one_seed_is_never_a_verdict():
    results = hand_results({"base": _accuracy(0.0, 1), "accuracy_only": _accuracy(0.5, 1), "sft": _accuracy(0.0, 1)})
    verdict = compare_with_baseline(results, 0.95)[0]
    assert verdict.outcome == "seed variance not measured"
    assert verdict.sentence.startswith(
        "No verdict on 'accuracy only' against 'base', because seed variance was not measured: +50.0"
    )
    assert "interval over prompts only" in verdict.sentence
    assert "Holm" not in verdict.sentence
    assert verdict.difference is not None
    assert verdict.difference.p_holm is None


def test_an_arm_without_results_does_not_count_in_the_family():
    none = np.empty((0, NUM_ITEMS))
    results = hand_results(
        {"base": _accuracy(0.1, entropy=1), "accuracy_only": _accuracy(0.2, entropy=2), "dr_grpo": none, "sft": none}
    )
    present, absent = compare_with_baseline(results, 0.95)
    assert (absent.outcome, absent.difference) == ("missing", None)
    assert absent.sentence == "No verdict on 'dr grpo' against 'base': results are missing."
    assert present.difference is not None
    assert present.difference.family_size == 1
    assert {one.outcome for one in compare_with_start(results, 0.95)} == {"missing"}


def test_arms_are_compared_on_the_seeds_that_both_have():
    results = hand_results({"base": _accuracy(0.1, 2), "accuracy_only": _accuracy(0.2, 3), "sft": _accuracy(0.0, 1)})
    difference = compare_with_baseline(results, 0.95)[0].difference
    assert difference is not None
    assert difference.num_seeds == 2


def test_an_arm_outside_the_family_has_an_uncorrected_p_value(results: Results):
    study = results.study.model_copy(update={"family": ("format_only", "dr_grpo")})
    narrowed = replace(results, **({"study": study}))
    outside, inside, _ = compare_with_baseline(narrowed, 0.95)
    assert "outside the declared family, uncorrected p < 0.001" in outside.sentence
    assert outside.difference is not None
    assert (outside.difference.p_holm, outside.difference.family_size) == (None, 0)
    assert inside.difference is not None
    assert inside.difference.family_size == 2


def test_a_difference_that_loses_significance_by_correction_is_not_resolved():
    # Scores whose plain p-value is about 0.03: alone significant, not after correction over three comparisons.
    rng = np.random.default_rng(5)
    base = np.full((3, NUM_ITEMS), 0.5)
    arms = {name: base + rng.normal(0.0, 0.065, base.shape) for name in ("accuracy_only", "format_only", "dr_grpo")}
    arms["accuracy_only"] += 0.022 - (arms["accuracy_only"] - base).mean()
    for name in ("format_only", "dr_grpo"):
        arms[name] -= (arms[name] - base).mean()
    results = hand_results({"base": base, **arms, "sft": base[:1]})
    verdict = compare_with_baseline(results, 0.95)[0]
    assert verdict.difference is not None
    assert verdict.difference.p_value is not None
    assert 0.05 / 3 < verdict.difference.p_value < 0.05
    assert verdict.outcome == "not resolved"
    assert verdict.sentence.startswith("Not resolved whether 'accuracy only' beats 'base': +2.2 percentage points")
    assert (
        "the interval excludes 0, but after Holm's correction over 3 comparisons the difference is not significant"
        in verdict.sentence
    )


def test_where_lower_is_better_a_fall_is_an_improvement(results: Results):
    primary = results.study.primary.model_copy(update={"metric": "truncated"})
    scores = {
        key: type(one)(
            means=one.means.rename(columns={"choice_accuracy": "truncated"}),
            counts=one.counts.rename(columns={"choice_accuracy": "truncated"}),
            binary=frozenset({"truncated"}),
        )
        for key, one in results.scores.items()
    }
    study = results.study.model_copy(update={"primary": primary})
    found = compare_with_baseline(replace(results, **({"study": study, "scores": scores})), 0.95)
    assert [one.outcome for one in found] == ["worse", "better", "not resolved"]


def test_seeds_are_matched_only_if_each_has_its_own_warm_start(tmp_path: Path):
    arms = ("base", "accuracy_only")
    for per_seed in (True, False):
        size = Size(arms=arms, seeds=(1, 2), items=8, samples=2, steps=2, per_seed=per_seed)
        results = gather(*write_synthetic(tmp_path / str(per_seed), size), Settings(study="synthetic"))
        column = primary_column(results)
        ours, theirs = (scores_of(results, results.rows[name], column) for name in ("accuracy_only", "base"))
        expected, otherwise = (paired_difference(ours, theirs, matched_seeds=one) for one in (per_seed, not per_seed))
        assert expected.p_value != otherwise.p_value
        verdict = compare_with_baseline(results, 0.95)[0]
        assert verdict.difference is not None
        assert verdict.difference.p_value == pytest.approx(expected.p_value, rel=1e-5)
        other = verdict.other_modes[-1]
        assert (other.title, other.opposed) == ("accuracy, avg@2, seeds paired the other way", False)
        assert other.difference.p_value == pytest.approx(otherwise.p_value, rel=1e-5)
        assert other.difference.effect == verdict.difference.effect
        # Against its start, every seed has its own reference, or all have the same.
        starts = scores_of(results, results.rows["sft"], column)
        expected = paired_difference(ours, np.broadcast_to(starts, ours.shape))
        found = compare_with_start(results, 0.95)[1].difference
        assert found is not None
        assert found.p_value == pytest.approx(expected.p_value, rel=1e-5)
        said = "a warm start of its own" if per_seed else "shared by all seeds"
        assert said in start_note(results)


def test_gains_are_over_the_warm_start_and_the_note_states_their_coverage(results: Results):
    gains = compare_with_start(results, 0.95)
    assert [(one.arm, one.reference) for one in gains] == [
        (arm, "sft") for arm in ("base", "accuracy_only", "format_only", "dr_grpo")
    ]
    assert start_of(results, "base").key == "sft"
    assert "shared by all seeds" in start_note(results)
    assert "but not that of training the warm start" in start_note(results)


def test_a_gain_in_one_mode_does_not_hide_a_loss_in_another():
    # With 4 samples, avg@4 rises from .5 to .75, but a quarter of the prompts is never right now: pass@4 falls to .75.
    half, uneven = np.full((3, NUM_ITEMS), 0.5), np.where(np.arange(NUM_ITEMS) % 4, 1.0, 0.0)
    jitter = 0.25 * (np.arange(NUM_ITEMS) % 12 == np.array([[1], [2], [3]]))
    results = hand_results({"base": half + jitter, "accuracy_only": np.tile(uneven, (3, 1)) - jitter})
    (verdict,) = compare_with_baseline(results, 0.95)
    assert verdict.outcome == "better"
    (mode,) = [mode for mode in verdict.other_modes if mode.column == "test/pass_at_4/sampled"]
    assert mode.opposed
    assert mode.by_seed == pytest.approx((-0.25, -0.25, -0.25))
    assert verdict.by_seed == pytest.approx((0.75 - 0.5 - 2 * 0.25 / 12,) * 3, abs=1e-6)
    assert "But accuracy, pass@4 moves the other way: −25.0 percentage points" in verdict.sentence
    assert "in 3 of 3 seeds" in verdict.sentence


def test_modes_that_agree_add_no_warning(results: Results):
    for verdict in compare_with_baseline(results, 0.95):
        assert "moves the other way" not in verdict.sentence
        assert not any(mode.opposed for mode in verdict.other_modes)


@pytest.mark.parametrize("compare", [False, True])
def test_a_reference_is_compared_only_if_declared(results: Results, compare: bool):
    reference = Reference(path="owner/name", compare=compare)
    study = results.study.model_copy(update={"references": {"released": reference}})
    row = replace(results.rows["sft"], key="released", kind="reference", label="as released")
    found = compare_with_references(replace(results, study=study, rows=results.rows | {"released": row}), 0.95)

    assert [one.reference for one in found] == ["released"] * 4 * compare
    # The reference answers as the warm start does, which every arm of the study is compared with as its start.
    gains = compare_with_start(results, 0.95)[: len(found)]
    assert [one.difference for one in found] == [one.difference for one in gains]
    assert all(one.sentence.count("'as released'") == 1 for one in found)

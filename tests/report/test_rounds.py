"""Sequential seeds: decisions of a look, and numbers that hold over all looks."""

from dataclasses import replace

import numpy as np
import pytest

from rlassay.config.study import SequentialSeeds
from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.report.findings.rounds import build_rounds, decide_look, look_summary
from rlassay.report.gather import Results
from rlassay.report.verdicts import compare_with_baseline
from rlassay.stats import SequentialTest, paired_difference
from tests.report.by_hand import hand_results

ROUNDS = SequentialSeeds(start=3, max=9, step=2, stop="decided_or_hopeless")
ITEMS = 50
UNSURE = 0.05
"""The effect of an arm whose seeds differ too much for a verdict."""


def sequential(
    effects: dict[str, float], num_seeds: dict[str, int], rounds: SequentialSeeds = ROUNDS, margin: float = 0.05
) -> Results:
    """A study whose arms differ from the baseline by nearly constant effects."""
    rng = np.random.default_rng(1)
    scores = {"sft": np.full((1, ITEMS), 0.4)}
    for arm, effect in effects.items():
        noise = rng.normal(0, 0.01, (num_seeds.get(arm, max(num_seeds.values())), 1))
        if effect == UNSURE:
            noise = 0.08 * (-1.0) ** np.arange(len(noise))[:, None]
        scores[arm] = np.clip(0.5 + effect + noise + rng.normal(0, 0.02, (len(noise), ITEMS)), 0, 1)
    found = hand_results(scores)
    primary = found.study.primary.model_copy(update={"smallest_effect": margin})
    study = found.study.model_copy(
        update={"sequential": rounds, "primary": primary, "seeds": tuple(range(1, rounds.max + 1))}
    )
    return replace(found, study=study)


def test_a_look_has_one_of_five_words_for_every_arm():
    effects = {"base": 0.0, "accuracy_only": 0.2, "format_only": -0.2, "dr_grpo": 0.05}

    look = decided(sequential(effects, {"base": 5}), 2)

    assert {one.arm: (one.outcome, one.dropped) for one in look.arms} == {
        "accuracy_only": ("better", False),
        "format_only": ("worse", False),
        "dr_grpo": ("continue", False),
    }
    assert look.undecided == ("dr_grpo",)
    assert (look.seeds, look.look) == (5, 2)


def decided(results: Results, look: int):
    return decide_look(results, compare_with_baseline(results, 0.95, plan=False), look)


def test_an_arm_that_was_dropped_stays_dropped_at_the_last_look():
    effects = {"base": 0.0, "dr_grpo": -0.045, "format_only": UNSURE}
    look = decided(sequential(effects, {"base": 9, "format_only": 9, "dr_grpo": 3}), 4)
    assert {one.arm: (one.outcome, one.dropped, one.seeds) for one in look.arms} == {
        "dr_grpo": ("inconclusive", True, 3),
        "format_only": ("inconclusive", False, 9),
    }


def test_seeds_after_the_last_look_change_no_number():
    three, four = (decided(sequential({"base": 0.0, "dr_grpo": 0.02}, {"base": n}), 1).arms[0] for n in (3, 4))
    assert three.difference is not None
    assert four.difference is not None
    assert four.difference.num_seeds == 3
    assert four.difference.effect == pytest.approx(three.difference.effect, abs=0.02)


def test_equal_arms_are_equivalent_and_stop():
    look = decided(sequential({"base": 0.0, "dr_grpo": 0.0}, {"base": 7}), 3)

    assert [(one.outcome, one.dropped) for one in look.arms] == [("equivalent", False)]
    assert look.undecided == ()


def test_an_arm_is_dropped_once_a_gain_of_the_declared_size_is_excluded_if_the_study_says_so():
    effects, seeds = {"base": 0.0, "dr_grpo": -0.045}, {"base": 3}
    patient = ROUNDS.model_copy(update={"stop": "decided"})

    hopeless, kept = decided(sequential(effects, seeds), 1), decided(sequential(effects, seeds, patient), 1)

    assert [(one.outcome, one.dropped) for one in hopeless.arms] == [("inconclusive", True)]
    assert [(one.outcome, one.dropped) for one in kept.arms] == [("continue", False)]
    assert (hopeless.undecided, kept.undecided) == ((), ("dr_grpo",))


def test_the_last_look_leaves_the_undecided_inconclusive():
    effects = {"base": 0.0, "dr_grpo": 0.05}

    look = decided(sequential(effects, {"base": 9}, ROUNDS.model_copy(update={"stop": "decided"}), 0.049), 4)

    assert {one.outcome for one in look.arms} <= {"better", "inconclusive"}
    assert look.undecided == ()


def test_an_arm_that_stopped_keeps_its_seeds_while_others_go_on():
    effects = {"base": 0.0, "accuracy_only": 0.2, "dr_grpo": 0.05}
    results = sequential(effects, {"base": 5, "accuracy_only": 3})

    look = decided(results, 2)

    assert {one.arm: one.seeds for one in look.arms} == {"accuracy_only": 3, "dr_grpo": 5}
    assert look.undecided == ("dr_grpo",)


def test_the_interval_and_the_p_value_are_those_over_all_looks():
    results = sequential({"base": 0.0, "dr_grpo": 0.02}, {"base": 5})
    ours, theirs = (
        np.stack([results.scores[folder, "test"].mean_by_prompt("sampled", "choice_accuracy") for folder in folders])
        for folders in (results.rows[arm].folders.values() for arm in ("dr_grpo", "base"))
    )

    found = compare_with_baseline(results, 0.95, plan=False)[0].difference

    test = SequentialTest((3, 5, 7, 9))
    by_hand = paired_difference(ours, theirs, test.confidence(1, 0.05), matched_seeds=False)
    p_values = [paired_difference(ours[:n], theirs[:n], matched_seeds=False).p_value for n in (3, 5)]
    assert found is not None
    assert (found.low, found.high) == pytest.approx((by_hand.low, by_hand.high), abs=1e-6)
    assert found.p_value == pytest.approx(test.p_value(p_values), rel=1e-3)
    once = paired_difference(ours, theirs, matched_seeds=False)
    assert by_hand.low < once.low < once.high < by_hand.high


def test_the_page_counts_what_the_rounds_saved(tmp_path):
    effects = {"base": 0.0, "accuracy_only": 0.2, "dr_grpo": 0.05}
    results = replace(sequential(effects, {"base": 5, "accuracy_only": 3}), layout=Layout(root=tmp_path))
    first = decided(sequential(effects, {"base": 3}), 1)
    write_json(tmp_path / "looks/look1.json", first.model_dump(mode="json"))
    write_json(tmp_path / "looks/look2.json", {**decided(results, 2).model_dump(mode="json"), "undecided": []})

    rounds = build_rounds(results)

    # base and dr_grpo have 5 seeds, accuracy_only 3: 13 of 3 x 9 runs.
    assert rounds is not None
    assert first.undecided == ("dr_grpo",)
    assert (rounds.runs, rounds.planned_runs, len(rounds.taken)) == (13, 27, 2)
    assert rounds.sentence == ("Sequential seeds took 13 runs; 9 seeds for every arm would have taken 27. Saved: 52 %.")
    line = look_summary(first, {"accuracy_only": "accuracy only", "dr_grpo": "Dr. GRPO"}, 4)
    assert line == "Look 1 of 4 at 3 seeds: better: 'accuracy only'; continue: 'Dr. GRPO'"

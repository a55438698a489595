"""The words with most and least credit."""

from typing import Any

import numpy as np
import pytest

from rlassay.layout import Layout
from rlassay.report.credit_ranking import MAX_STEPS, MIN_COUNT, RANKED, rank_words
from rlassay.report.gather import Results
from tests.report.by_hand import hand_results
from tests.report.synthetic_credit import row_of, write_shard


@pytest.fixture
def hand(tmp_path) -> Results:
    """Two arms x two seeds on an empty folder."""
    made = hand_results({"base": np.zeros((2, 2)), "dr_grpo": np.zeros((2, 2)), "sft": np.zeros((1, 2))})
    return Results(**(vars(made) | {"layout": Layout(root=tmp_path)}))


def _write(results: Results, arm: str, seed: int, tokens: list[str], weight: list[float], steps: int = 1) -> None:
    row: dict[str, Any] = row_of(tokens=tokens, weight=weight)
    for step in range(1, steps + 1):
        write_shard(results.layout.tokens(f"runs/{arm}/seed{seed}"), step, [row] * MIN_COUNT)


def test_means_and_intervals_by_hand(hand: Results):
    _write(hand, "base", 1, ["Cat", " dog.", " a"], [2.0, 0.4, 1.0])
    _write(hand, "base", 2, [" cat", " DOG", " cat"], [2.4, 0.2, 3.0])
    (base,) = rank_words(hand, 0.95)
    assert (base.arm, base.num_seeds, base.num_completions) == ("base", 2, 2 * MIN_COUNT)
    assert (base.num_words, base.even) == (3, None)
    # Seed 1: cat 2, dog .4, a 1. Seed 2: cat (2.4 + 3) / 2 = 2.7, dog .2. Over seeds: cat 2.35, dog .3, a 1.
    assert [(one.word, one.weight.mean) for one in (*base.most, *base.least)] == [("cat", 2.35), ("dog", 0.3)]
    cat = base.most[0].weight
    assert (cat.num_seeds, cat.num_items) == (2, 3 * MIN_COUNT)
    # Two seeds: t(1) = 12.706205, s / sqrt(2) = |2 - 2.7| / 2.
    assert cat.high == pytest.approx(2.35 + 12.706205 * 0.35, abs=1e-5)


def test_rare_words_are_not_ranked(hand: Results):
    rare = row_of(tokens=["rare"], weight=[9.0])
    common = row_of(tokens=["b", " c"], weight=[1.0, 2.0])
    write_shard(hand.layout.tokens("runs/base/seed1"), 1, [rare] * (MIN_COUNT - 1) + [common] * MIN_COUNT)
    (base,) = rank_words(hand, 0.95)
    assert base.num_words == 2
    assert [one.word for one in (*base.most, *base.least)] == ["c", "b"]


def test_alike_weights_are_said_and_not_ranked(hand: Results):
    _write(hand, "dr_grpo", 1, ["a", " b", " c"], [0.7, 0.7, 0.7])
    (arm,) = rank_words(hand, 0.95)
    assert (arm.arm, arm.even, arm.most, arm.least) == ("dr_grpo", 0.7, (), ())


def test_at_most_so_many_words_and_none_at_both_ends(hand: Results):
    letters = [chr(ord("a") + place) for place in range(3 * RANKED)]
    _write(hand, "base", 1, [f" {one}" for one in letters], [float(place) for place in range(len(letters))])
    _write(hand, "dr_grpo", 1, [" a", " b", " c"], [1.0, 2.0, 3.0])
    many, few = rank_words(hand, 0.95)
    assert [one.word for one in many.most] == letters[: -RANKED - 1 : -1]
    assert [one.word for one in many.least] == letters[:RANKED]
    assert [one.word for one in (*few.most, *few.least)] == ["c", "a"]


def test_ties_go_by_the_alphabet(hand: Results):
    _write(hand, "base", 1, ["d", " c", " b", " a"], [1.0, 1.0, 0.0, 0.0])
    (base,) = rank_words(hand, 0.95)
    assert [one.word for one in base.most] == ["c", "d"]
    assert [one.word for one in base.least] == ["a", "b"]


def test_of_a_long_run_evenly_spaced_steps_are_read(hand: Results):
    _write(hand, "base", 1, ["a"], [1.0], steps=3 * MAX_STEPS)
    assert rank_words(hand, 0.95)[0].num_completions == MAX_STEPS * MIN_COUNT


def test_without_shards_no_arm_is_ranked(hand: Results):
    assert rank_words(hand, 0.95) == []

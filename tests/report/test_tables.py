"""Tables: their columns, and cells and differences computed from the scores."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rlassay.report.gather import Results
from rlassay.report.read.scores import PolicyScores
from rlassay.report.tables import build_tables, difference, estimate, over_seeds, primary_column, scores_of, tidy
from rlassay.stats import crossed_interval, paired_difference, share_interval
from tests.report.by_hand import hand_results


def test_columns_of_the_main_table(results: Results):
    columns = {column.key: column for column in build_tables(results, 0.95)["main"].columns}
    assert list(columns) == [
        "test/choice_accuracy/sampled",
        "test/choice_accuracy/greedy",
        "test/pass_at_4/sampled",
        "test/choice_accuracy_lenient/sampled",
        "test/think_answer_format/sampled",
        "test/soft_overlong/sampled",
    ]
    assert [key for key, column in columns.items() if column.primary] == ["test/choice_accuracy/sampled"]
    assert columns["test/choice_accuracy/sampled"].title == "accuracy, avg@4"
    assert columns["test/soft_overlong/sampled"].unit == "value"
    assert columns["test/think_answer_format/sampled"].unit == "share"


def test_other_tables(results: Results):
    tables = build_tables(results, 0.95)
    assert [column.metric for column in tables["pass_at_k"].columns] == ["pass_at_1", "pass_at_2", "pass_at_4"]
    assert {column.better for column in tables["parsing"].columns} == {"lower"}
    assert {column.unit for column in tables["length"].columns} == {"tokens", "share"}
    for table in tables.values():
        assert [row.kind for row in table.rows] == ["untrained", "sft", "arm", "arm", "arm", "arm"]
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_a_cell_is_the_mean_of_the_scores_on_disk(results: Results):
    tables = build_tables(results, 0.95)
    frames = [
        pd.read_parquet(results.layout.scores(f"runs/dr_grpo/seed{seed}", "test")).query("mode == 'sampled'")
        for seed in (1, 2, 3)
    ]
    rows = pd.concat(frames)
    for name, metric in (("main", "choice_accuracy"), ("length", "token_count"), ("parsing", "parse_failure")):
        table = tables[name]  # type: ignore[index]
        place = [column.key for column in table.columns].index(f"test/{metric}/sampled")
        cell = table.rows[-1].cells[place]
        assert cell.mean == pytest.approx(rows[rows.metric == metric].value.mean(), abs=1e-6)
        assert (cell.num_seeds, cell.num_items) == (3, 24)


def test_pass_at_1_is_the_mean_and_pass_at_k_grows(results: Results):
    tables = build_tables(results, 0.95)
    for main, passes in zip(tables["main"].rows, tables["pass_at_k"].rows, strict=True):
        means = [cell.mean or 0.0 for cell in passes.cells]
        assert means[0] == pytest.approx(main.cells[0].mean)
        assert means == sorted(means)


def test_without_greedy_decoding_there_is_no_greedy_column(results: Results):
    evaluation = results.study.evaluation.model_copy(update={"greedy": False})
    study = results.study.model_copy(update={"evaluation": evaluation})
    tables = build_tables(replace(results, **({"study": study})), 0.95)
    assert {column.mode for table in tables.values() for column in table.columns} == {"sampled"}


def test_columns_of_several_sets_have_the_set_in_their_title(results: Results):
    evaluation = results.study.evaluation.model_copy(update={"sets": ("test", "hard")})
    study = results.study.model_copy(update={"evaluation": evaluation})
    scores = results.scores | {(folder, "hard"): one for (folder, _), one in results.scores.items()}
    prompts = results.prompts | {"hard": results.prompts["test"]}
    both = replace(results, **({"study": study, "scores": scores, "prompts": prompts}))
    main = build_tables(both, 0.95)["main"]
    assert [column.set for column in main.columns] == ["test"] * 6 + ["hard"] * 6
    assert main.columns[6].title == "hard: accuracy, avg@4"
    assert main.rows[2].cells[:6] == main.rows[2].cells[6:]


def test_a_primary_metric_between_0_and_1_has_no_pass_at_k(results: Results):
    primary = results.study.primary.model_copy(update={"metric": "soft_overlong"})
    study = results.study.model_copy(update={"primary": primary})
    graded = replace(results, **({"study": study}))
    tables = build_tables(graded, 0.95)
    assert set(tables) == {"main", "length", "parsing"}
    assert tables["main"].columns[0].key == primary_column(graded).key == "test/soft_overlong/sampled"
    assert "test/choice_accuracy/sampled" in [column.key for column in tables["main"].columns]
    assert tidy(tables["main"].rows[2].cells[0].mean or 0.0) is not None


def without_options(scores: PolicyScores) -> PolicyScores:
    """The scores for prompts without options: no choice metric has a value."""
    means, counts = scores.means.copy(), scores.counts.copy()
    of_choices = [column for column in means if "choice" in column[1] or "parse" in column[1] or "grading" in column[1]]
    means[of_choices], counts[of_choices] = float("nan"), 0
    return PolicyScores(means=means, counts=counts, binary=scores.binary)


def test_prompts_without_options_have_no_columns_of_choice_metrics(results: Results):
    primary = results.study.primary.model_copy(update={"metric": "think_answer_format"})
    study = results.study.model_copy(update={"primary": primary})
    scores = {key: without_options(one) for key, one in results.scores.items()}
    tables = build_tables(replace(results, **({"study": study, "scores": scores})), 0.95)
    assert "parsing" not in tables
    assert [column.metric for column in tables["main"].columns] == [
        "think_answer_format",
        "think_answer_format",
        "pass_at_4",
        "soft_overlong",
    ]
    assert [column.metric for column in tables["length"].columns] == ["token_count", "token_count", *["truncated"] * 2]


@pytest.mark.parametrize(("value", "held"), [(float("nan"), None), (1 / 3, 0.333333), (-1e-9, 0.0)])
def test_numbers_are_rounded_and_never_nan_or_minus_zero(value: float, held: float | None):
    assert tidy(value) == held
    assert str(tidy(value)) != "-0.0"


def test_scores_have_one_row_per_seed():
    values = np.array([[0.0, 0.5, 1.0], [0.25, 0.5, 0.75]])
    results = hand_results({"base": values, "sft": values[:1]})
    assert scores_of(results, results.rows["base"], primary_column(results)).tolist() == values.tolist()


def test_pass_at_k_uses_the_scored_samples():
    # 4 samples, 0, 1 and 2 of them right: pass@2 = 0, 1 - C(3,2)/C(4,2) = 0.5 and 1 - C(2,2)/C(4,2) = 5/6.
    results = hand_results({"base": np.array([[0.0, 0.25, 0.5, np.nan]]), "sft": np.array([[1.0, 1.0, 1.0, 1.0]])})
    column = primary_column(results).model_copy(update={"metric": "pass_at_2"})
    found = scores_of(results, results.rows["base"], column)
    assert found[0] == pytest.approx([0, 0.5, 5 / 6, np.nan], nan_ok=True)


def test_a_metric_that_a_policy_lacks_has_no_estimate():
    results = hand_results({"base": np.array([[0.0, 1.0]]), "sft": np.array([[0.0, 1.0]])})
    column = primary_column(results).model_copy(update={"metric": "unknown"})
    cell = estimate(scores_of(results, results.rows["base"], column), "share", 0.95)
    assert (cell.mean, cell.low, cell.num_items, cell.covers) == (None, None, 0, "nothing")


def test_an_estimate_is_the_crossed_interval_kept_inside_shares():
    scores = np.array([[0.0, 0.0, 0.3], [0.1, 0.0, 0.0]])
    plain = crossed_interval(scores)
    assert plain.low < 0
    cell = estimate(scores, "share", 0.95)
    low, high = share_interval(plain.mean, plain.high - plain.mean)
    assert 0 < low < plain.mean < high < 1
    assert (cell.low, cell.high) == pytest.approx((low, high), abs=1e-6)
    # The same form where the linear interval would stay inside: a share near 1 has less room above than below.
    inside = 0.9 - scores / 10
    plain_inside, cell_inside = crossed_interval(inside, 0.6), estimate(inside, "share", 0.6)
    assert plain_inside.high < 1
    ends = share_interval(plain_inside.mean, plain_inside.high - plain_inside.mean)
    assert (cell_inside.low, cell_inside.high) == pytest.approx(ends, abs=1e-6)
    assert ends[0] < plain_inside.low
    assert ends[1] < plain_inside.high
    assert (cell.mean, cell.num_seeds, cell.num_items) == (pytest.approx(0.4 / 6, abs=1e-6), 2, 3)
    assert cell.covers == "seeds and items"


def test_values_that_all_lie_between_0_and_1_are_kept_there_and_others_are_not():
    scores = np.array([[0.0, 0.0, 0.3], [0.1, 0.0, 0.0]])
    assert estimate(scores, "value", 0.95) == estimate(scores, "share", 0.95)
    wider = scores - np.array([[0.0, 0.0, 0.01]])
    plain = crossed_interval(wider)
    assert plain.low < 0
    assert estimate(wider, "value", 0.95).low == pytest.approx(plain.low, abs=1e-6)
    for unit in ("tokens", "nats"):
        assert estimate(scores, unit, 0.95).low == pytest.approx(crossed_interval(scores).low, abs=1e-6)


def test_an_interval_stays_inside_the_limits_of_its_metric():
    # A penalty that is 0 on every prompt can only be lower on unseen ones.
    penalty = estimate(np.zeros((2, 24)), "value", 0.95, (-1.0, 0.0))
    assert (penalty.mean, penalty.high, penalty.by_seed) == (0.0, 0.0, (0.0, 0.0))
    assert penalty.low is not None
    assert -0.2 < penalty.low < -0.1
    # From -1 to 1 the interval is that of the shares, twice as wide and one lower.
    scores = np.array([[0.3, 0.5, 0.4], [0.9, 1.0, 0.95]])
    share, doubled = estimate(scores, "share", 0.95), estimate(2 * scores - 1, "value", 0.95, (-1.0, 1.0))
    assert share.low is not None
    assert share.high is not None
    assert (doubled.low, doubled.high) == pytest.approx((2 * share.low - 1, 2 * share.high - 1), abs=1e-5)


@pytest.mark.parametrize("matched", [True, False])
def test_a_difference_is_the_paired_interval_clipped_to_shares(matched: bool):
    arm, reference = np.array([[1.0, 1.0, 0.8], [0.9, 1.0, 1.0]]), np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 0.1]])
    expected = paired_difference(arm, reference, matched_seeds=matched)
    assert expected.high > 1
    found = difference(arm, reference, "share", 0.95, matched)
    assert (found.effect, found.low) == pytest.approx((expected.mean, expected.low), abs=1e-6)
    assert found.high == 1.0
    assert found.p_value == pytest.approx(expected.p_value, rel=1e-5)
    assert found.covers == "seeds and items"


def test_one_seed_covers_items_only():
    found = difference(np.array([[1.0, 0.5, 0.2]]), np.array([[0.5, 0.5, 0.5]]), "share", 0.95, True)
    assert (found.num_seeds, found.covers, found.p_value) == (1, "items", None)


def test_training_statistics_have_an_interval_over_seeds():
    # 1, 2, 3: mean 2, s = 1, t(2) = 4.302653, reach 4.302653 / sqrt(3) = 2.484138.
    found = over_seeds(np.array([1.0, 2.0, 3.0]), 64, 0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.484138, 4.484138), abs=1e-6)
    assert (found.num_seeds, found.num_items, found.covers) == (3, 64, "seeds")
    assert over_seeds(np.array([1.0]), 64, 0.95).covers == "nothing"

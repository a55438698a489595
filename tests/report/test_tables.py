"""Tables: which columns stand in them, and that cells are what the scores say."""

import pandas as pd
import pytest

from rlassay.report.estimates import tidy
from rlassay.report.gather import Results
from rlassay.report.reading import Scores
from rlassay.report.tables import build_tables, primary_column


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


def test_a_cell_is_the_mean_of_the_rows_on_disk(results: Results):
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
    tables = build_tables(Results(**(vars(results) | {"study": study})), 0.95)
    assert {column.mode for table in tables.values() for column in table.columns} == {"sampled"}


def test_several_sets_are_told_apart(results: Results):
    evaluation = results.study.evaluation.model_copy(update={"sets": ("test", "hard")})
    study = results.study.model_copy(update={"evaluation": evaluation})
    scores = results.scores | {(folder, "hard"): one for (folder, _), one in results.scores.items()}
    prompts = results.prompts | {"hard": results.prompts["test"]}
    both = Results(**(vars(results) | {"study": study, "scores": scores, "prompts": prompts}))
    main = build_tables(both, 0.95)["main"]
    assert [column.set for column in main.columns] == ["test"] * 6 + ["hard"] * 6
    assert main.columns[6].title == "hard: accuracy, avg@4"
    assert main.rows[2].cells[:6] == main.rows[2].cells[6:]


def test_a_graded_primary_metric_has_no_pass_at_k(results: Results):
    primary = results.study.primary.model_copy(update={"metric": "soft_overlong"})
    study = results.study.model_copy(update={"primary": primary})
    graded = Results(**(vars(results) | {"study": study}))
    tables = build_tables(graded, 0.95)
    assert set(tables) == {"main", "length", "parsing"}
    assert tables["main"].columns[0].key == primary_column(graded).key == "test/soft_overlong/sampled"
    assert "test/choice_accuracy/sampled" in [column.key for column in tables["main"].columns]
    assert tidy(tables["main"].rows[2].cells[0].mean or 0.0) is not None


def without_options(scores: Scores) -> Scores:
    """The scores as they would be if no prompt had options: no metric of choices can be judged."""
    means, counts = scores.means.copy(), scores.counts.copy()
    of_choices = [column for column in means if "choice" in column[1] or "parse" in column[1] or "grading" in column[1]]
    means[of_choices], counts[of_choices] = float("nan"), 0
    return Scores(means=means, counts=counts, binary=scores.binary)


def test_prompts_without_options_have_no_column_about_options(results: Results):
    primary = results.study.primary.model_copy(update={"metric": "think_answer_format"})
    study = results.study.model_copy(update={"primary": primary})
    scores = {key: without_options(one) for key, one in results.scores.items()}
    tables = build_tables(Results(**(vars(results) | {"study": study, "scores": scores})), 0.95)
    assert "parsing" not in tables
    assert [column.metric for column in tables["main"].columns] == [
        "think_answer_format",
        "think_answer_format",
        "pass_at_4",
        "soft_overlong",
    ]
    assert [column.metric for column in tables["length"].columns] == ["token_count", "token_count", *["truncated"] * 2]

"""Completions side by side: the choice of prompts and of completions."""

from dataclasses import replace

import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.records import CompletionRow, read_rows, write_rows
from rlassay.report.examples import IN_ORDER, build_examples
from rlassay.report.gather import Results, ResultsError, gather
from rlassay.report.tables import primary_column, scores_of
from tests.report.conftest import SETTINGS


def test_the_first_example_is_where_the_arms_differ_most(results: Results):
    prompt_ids = sorted(results.prompts["test"])
    arms = [row for row in results.rows.values() if row.kind == "arm"]
    means = [scores_of(results, row, primary_column(results)).mean(axis=0) for row in arms]
    spread = [max(column) - min(column) for column in zip(*means, strict=True)]
    first = build_examples(results, 3)[0]
    widest = [prompt_id for prompt_id, one in zip(prompt_ids, spread, strict=True) if one >= max(spread) - 1e-9]
    assert first.prompt_id == widest[0]
    assert first.reason.startswith("The arms differ most here")


def test_reasons_alternate_and_no_prompt_repeats(results: Results):
    examples = build_examples(results, 6)
    openings = [example.reason.split(" here")[0] for example in examples]
    assert openings[:3] == [
        "The arms differ most",
        "RL changed most",
        "The strict and the lenient parser disagree most",
    ]
    assert openings[:2] == openings[3:5]
    assert len({example.prompt_id for example in examples}) == 6


def test_every_row_shows_sample_zero_of_its_first_seed(results: Results):
    example = build_examples(results, 1)[0]
    assert [shown.row for shown in example.completions] == list(results.rows)
    shown = example.completions[2]
    assert (shown.row, shown.seed) == ("base", 1)
    path = results.layout.completions("runs/base/seed1", "test")
    expected = next(
        one
        for one in read_rows(path, CompletionRow)
        if (one.prompt_id, one.mode, one.sample) == (example.prompt_id, "sampled", 0)
    )
    assert (shown.text, shown.token_count, shown.finished) == (expected.text, expected.token_count, expected.finished)
    assert shown.score == float(f"<answer>{example.answer}</answer>" in expected.text)
    assert example.images == ("../data/images/pair.png",)
    assert (results.layout.report / example.images[0]).resolve().is_file()


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (100, 24)])
def test_the_number_of_examples_is_limited_by_the_prompts(results: Results, count: int, shown: int):
    examples = build_examples(results, count)
    assert len(examples) == shown
    assert len({example.prompt_id for example in examples}) == shown


def test_prompts_that_no_rule_selects_are_in_order(results: Results):
    alike = results.scores["runs/base/seed1", "test"]
    columns = [column for column in alike.means.columns if column[1] != "grading_disagreement"]
    same = type(alike)(means=alike.means[columns], counts=alike.counts[columns], binary=alike.binary)
    flat = replace(results, **({"scores": dict.fromkeys(results.scores, same)}))
    examples = build_examples(flat, 2)
    assert [example.reason for example in examples] == [IN_ORDER, IN_ORDER]
    assert [example.prompt_id for example in examples] == sorted(results.prompts["test"])[:2]


def test_a_file_without_a_shown_completion_is_damaged(copied: tuple[Study, Layout]):
    study, layout = copied
    path = layout.completions("runs/base/seed1", "test")
    write_rows(path, [one for one in read_rows(path, CompletionRow) if one.mode == "greedy"])
    with pytest.raises(ResultsError, match="lacks sample 0 of 3 prompts") as caught:
        build_examples(gather(study, layout, SETTINGS), 3)
    assert f"-R {path}" in str(caught.value)

"""The data section: counts, evenly spaced samples, and rows that are missing or damaged."""

import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.records import Histogram, PromptRow, write_rows
from rlassay.report.data_splits import LONGEST, build_splits
from rlassay.report.gather import Results, gather
from rlassay.report.reading import ResultsError, sample_rows
from rlassay.report.typeset import counts, spread
from tests.report.conftest import SETTINGS


def test_splits_by_name(results: Results):
    splits = build_splits(results)
    assert [(one.split, one.rows) for one in splits] == [("sft", 64), ("test", 24), ("train", 32)]
    assert splits[0].refused == {
        "duplicate: nearly the same prompt stands in the split 'sft'": 3,
        "gold answer does not score": 1,
        "leak: nearly the same image stands in the split 'test'": 2,
    }
    assert [(one.duplicates, one.leaks) for one in splits] == [(3, 2), (0, 0), (0, 0)]


def test_samples_are_evenly_spaced_and_complete(results: Results):
    (first, second, third) = build_splits(results)[1].samples
    # of 24 rows, the first, and those that begin after a third and after two thirds of the file
    assert first.question == "Which digit is on the left? (0)"
    for sample, place in ((second, 8), (third, 16)):
        assert abs(int(sample.question.split("(")[1].rstrip(")")) - place) <= 1
    assert (first.choices, first.answer) == (("1", "3", "5", "7"), "A")
    assert first.images == ("../data/images/pair.png",)
    assert first.clips == ()


def row(number: int, length: int = 10) -> PromptRow:
    return PromptRow(prompt_id=str(number), question="x" * length, answer="1")


@pytest.mark.parametrize(("rows", "count", "expected"), [(1, 3, 1), (2, 3, 2), (100, 3, 3), (100, 0, 0)])
def test_never_more_samples_than_rows_and_none_twice(tmp_path, rows: int, count: int, expected: int):
    write_rows(tmp_path / "test.jsonl", [row(number) for number in range(rows)])
    found = [one.prompt_id for one in sample_rows(tmp_path / "test.jsonl", count)]
    assert len(found) == len(set(found)) <= expected
    assert found[:1] == ["0"][:expected]


def test_long_texts_are_shortened(copied: tuple[Study, Layout]):
    study, layout = copied
    write_rows(layout.split("train"), [row(0, 5000)])
    sample = next(split for split in build_splits(gather(study, layout, SETTINGS)) if split.split == "train").samples[0]
    assert sample.question == "x" * (LONGEST - 1) + "…"


def test_a_damaged_split_is_named_with_the_way_out(copied: tuple[Study, Layout]):
    study, layout = copied
    results = gather(study, layout, SETTINGS)
    layout.split("train").write_text("no row\n")
    with pytest.raises(ResultsError, match=r"train.jsonl is damaged .*byte 0.*make it again with: .*data.json"):
        build_splits(results)
    layout.split("train").unlink()
    with pytest.raises(ResultsError, match=r"train.jsonl is missing"):
        build_splits(results)


def test_numbers_in_words():
    assert spread(Histogram(quartiles=(1, 2, 3, 4, 1200), width=100, bars=(1,))) == (
        "1 to 1,200; half of them 2 to 4, median 3"
    )
    assert spread(Histogram(quartiles=(7, 7, 7, 7, 7), width=1, bars=(9,))) == "all 7"
    assert spread(None) == "none"
    assert counts({"4": 9}) == "4"
    assert counts({"0": 1000, "1": 2}) == "0 (1,000), 1 (2)"
    assert counts({}) == "–"

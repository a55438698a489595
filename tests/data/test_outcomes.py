"""Statistics of a split, from outcomes that can be counted by hand; `test_resume` covers the journal."""

from collections import Counter

import pytest

from rlassay.data import outcomes
from rlassay.data.duplicates import PromptSignature
from rlassay.data.outcomes import Accepted, Rejected, SplitStats, histogram
from rlassay.records import Histogram, Media, PromptRow, SplitFacts, row_line


def accepted(question, answer, choices=(), images=0):
    media = tuple(Media(path=f"{n}.png") for n in range(images))
    row = PromptRow(prompt_id="p", question=question, answer=answer, choices=choices, media=media)
    return Accepted(row=row_line(row), signature=PromptSignature(text=1))


def facts(*records):
    stats = SplitStats()
    for outcome in records:
        stats.add(outcome)
    return stats.facts()


def test_rows_with_options():
    found = facts(
        accepted("Who?", "B", ("ox", "bee"), images=1),
        Rejected(reason="image: unreadable"),
        accepted("What?", "A", ("tea", "jam", "x")),
        accepted("Where?", "B", ("a", "home"), images=1),
        Rejected(reason="image: unreadable"),
    )
    assert found == SplitFacts(
        rows=3,
        records=5,
        refused={"image: unreadable": 2},
        choices={"2": 2, "3": 1},
        media={"0": 1, "1": 2},
        answers={"A": 1, "B": 2},
        distinct_answers=2,
        question_length=Histogram(quartiles=(4, 4, 5, 6, 6), width=1, bars=(1, 1, 1)),
        answer_length=Histogram(quartiles=(3, 3, 3, 4, 4), width=1, bars=(2, 1)),  # tea, bee, home
    )


def test_free_answers_are_sorted_by_frequency_then_by_text(monkeypatch):
    answers = ["7", "yes", "no", "yes", "no", "12"]
    assert list(facts(*(accepted("Q", answer) for answer in answers)).answers.items()) == [
        ("no", 2),
        ("yes", 2),
        ("12", 1),
        ("7", 1),
    ]
    monkeypatch.setattr(outcomes, "MAX_DISTINCT_ANSWERS", 3)
    found = facts(*(accepted("Q", answer) for answer in answers))
    assert (found.answers, found.distinct_answers, found.rows) == ({}, None, 6)


def test_a_split_without_rows():
    assert facts(Rejected(reason="r")) == SplitFacts(rows=0, records=1, refused={"r": 1}, distinct_answers=0)


def test_the_first_rejected_records_of_each_reason_are_named():
    bad = [Rejected(reason="image: unreadable", where=f"a:{n}", detail="torn") for n in range(7)]
    found = facts(*bad, Rejected(reason="r", where="a:9"), accepted("Who?", "me"))
    assert (found.rows, found.records) == (1, 9)
    assert [one.where for one in found.rejected] == ["a:0", "a:1", "a:2", "a:3", "a:4", "a:9"]
    stats = SplitStats()
    for outcome in bad[:1] + [accepted("Who?", "me")] * 3:
        stats.add(outcome)
    assert stats.rejected_share() == 0.25
    assert stats.rejections() == "1 because image: unreadable (a:0: torn)"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([5], Histogram(quartiles=(5, 5, 5, 5, 5), width=1, bars=(1,))),
        # a range of 24 numbers in bars of 2: 1-2, ..., 23-24
        ([1, 2, 2, 24], Histogram(quartiles=(1, 1, 2, 2, 24), width=2, bars=(3, *[0] * 10, 1))),
        # one number more than 24 makes the bars 3 wide: 1-3, ..., 25
        ([1, 25], Histogram(quartiles=(1, 1, 1, 25, 25), width=3, bars=(1, *[0] * 7, 1))),
    ],
)
def test_histograms(numbers, expected):
    assert histogram(Counter(numbers)) == expected

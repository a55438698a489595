"""What the rows of a split are like, from rows that can be counted by hand."""

from collections import Counter

import pytest

from rlassay.data import tally
from rlassay.data.duplicates import Shown
from rlassay.data.journal import Kept, Refused
from rlassay.data.tally import Tally, histogram
from rlassay.records import Histogram, Media, PromptRow, SplitFacts, row_line


def kept(question, answer, choices=(), images=0):
    media = tuple(Media(path=f"{n}.png") for n in range(images))
    row = PromptRow(prompt_id="p", question=question, answer=answer, choices=choices, media=media)
    return Kept(row=row_line(row), shown=Shown(text=1))


def facts(*outcomes):
    counted = Tally()
    for outcome in outcomes:
        counted.add(outcome)
    return counted.facts()


def test_rows_with_options():
    found = facts(
        kept("Who?", "B", ("ox", "bee"), images=1),
        Refused(reason="image: unreadable"),
        kept("What?", "A", ("tea", "jam", "x")),
        kept("Where?", "B", ("a", "home"), images=1),
        Refused(reason="image: unreadable"),
    )
    assert found == SplitFacts(
        rows=3,
        refused={"image: unreadable": 2},
        choices={"2": 2, "3": 1},
        media={"0": 1, "1": 2},
        answers={"A": 1, "B": 2},
        distinct_answers=2,
        question_length=Histogram(quartiles=(4, 4, 5, 6, 6), width=1, bars=(1, 1, 1)),
        answer_length=Histogram(quartiles=(3, 3, 3, 4, 4), width=1, bars=(2, 1)),  # tea, bee, home
    )


def test_free_answers_by_falling_frequency_then_by_text(monkeypatch):
    answers = ["7", "yes", "no", "yes", "no", "12"]
    assert list(facts(*(kept("Q", answer) for answer in answers)).answers.items()) == [
        ("no", 2),
        ("yes", 2),
        ("12", 1),
        ("7", 1),
    ]
    monkeypatch.setattr(tally, "DISTINCT_ANSWERS", 3)
    found = facts(*(kept("Q", answer) for answer in answers))
    assert (found.answers, found.distinct_answers, found.rows) == ({}, None, 6)


def test_nothing_kept():
    assert facts(Refused(reason="r")) == SplitFacts(rows=0, refused={"r": 1}, distinct_answers=0)


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

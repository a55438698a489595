"""From tokens to words, and signals averaged over them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlassay.report.credit_words import END, LONGEST, mean_over, pieces, same_word


def _texts(*tokens: str) -> list[str]:
    return [piece.text for piece in pieces(tokens)]


def test_words_and_their_tokens_by_hand():
    # "<think>" | "7" | "B" | "</think>" | " the" | " ans" + "wer" | "." goes with the word | end of sequence
    found = pieces(["<think>", "7", "B", "</think>", " the", " ans", "wer", ".", ""])
    assert [(piece.before, piece.text, piece.tokens) for piece in found] == [
        ("", "<think>", range(0, 1)),
        ("", "7", range(1, 2)),
        ("", "B", range(2, 3)),
        ("", "</think>", range(3, 4)),
        (" ", "the", range(4, 5)),
        (" ", "answer.", range(5, 8)),
        (" ", END, range(8, 9)),
    ]


def test_a_token_across_a_boundary_belongs_to_both_words_and_a_blank_one_to_none():
    found = pieces(["on", "e\ntw", "o", " ", "3.5"])
    assert [(piece.before, piece.text, list(piece.tokens)) for piece in found] == [
        ("", "one", [0, 1]),
        ("\n", "two", [1, 2]),
        (" ", "3.5", [4]),
    ]


def test_tokens_that_begin_a_character_belong_to_its_word():
    found = pieces(["a", " ", "", "", "é", "t", "", "é"])
    assert [(piece.text, list(piece.tokens)) for piece in found] == [("a", [0]), ("été", [2, 3, 4, 5, 6, 7])]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("看图：5只猫", ["看", "图", "：", "5", "只", "猫"]),
        ("<script>alert(1)</script>", ["<script>", "alert(", "1", ")", "</script>"]),
        ("a < b <b", ["a", "<", "b", "<", "b"]),
        ("x" * (LONGEST + 1), ["x" * LONGEST, "x"]),
        ("", [END]),
        ("  ", []),
    ],
)
def test_what_counts_as_a_word(text: str, words: list[str]):
    assert _texts(text) == words


def test_nothing_generated_has_no_words():
    assert pieces([]) == []


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8))
def test_no_visible_character_is_lost_and_every_word_has_tokens(tokens: list[str]):
    found = pieces(tokens)
    assert "".join(piece.before + piece.text for piece in found) == "".join(tokens).rstrip()
    for piece in found:
        assert all(set(tokens[place]) & set(piece.text) for place in piece.tokens)
        assert piece.tokens


def test_mean_over_finite_values_only():
    (piece,) = pieces(["an", "s", "wer"])
    assert mean_over(piece, [1.0, 2.0, 6.0]) == 3.0
    assert mean_over(piece, [1.0, None, float("nan")]) == 1.0
    assert mean_over(piece, [None, None, None]) is None
    assert mean_over(piece, None) is None


@pytest.mark.parametrize(
    ("text", "form"),
    [("Answer.", "answer"), ("(two", "two"), ("...", "..."), (END, END), ("</Think>", "</think>"), ("x-Ray,", "x-ray")],
)
def test_occurrences_of_one_word(text: str, form: str):
    assert same_word(text) == form

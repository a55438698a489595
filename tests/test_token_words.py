"""Tokens grouped into words, and signals averaged over words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlassay.token_words import END, LONGEST, split_words, word_form, word_mean


def _texts(*tokens: str) -> list[str]:
    return [word.text for word in split_words(tokens)]


def test_words_and_their_tokens_by_hand():
    # "<think>" | "7" | "B" | "</think>" | " the" | " ans" + "wer" | "." goes with the word | end of sequence
    found = split_words(["<think>", "7", "B", "</think>", " the", " ans", "wer", ".", ""])
    assert [(word.before, word.text, word.tokens) for word in found] == [
        ("", "<think>", range(0, 1)),
        ("", "7", range(1, 2)),
        ("", "B", range(2, 3)),
        ("", "</think>", range(3, 4)),
        (" ", "the", range(4, 5)),
        (" ", "answer.", range(5, 8)),
        (" ", END, range(8, 9)),
    ]


def test_a_token_across_a_boundary_belongs_to_both_words_and_a_blank_token_to_none():
    found = split_words(["on", "e\ntw", "o", " ", "3.5"])
    assert [(word.before, word.text, list(word.tokens)) for word in found] == [
        ("", "one", [0, 1]),
        ("\n", "two", [1, 2]),
        (" ", "3.5", [4]),
    ]


def test_tokens_that_begin_a_character_belong_to_its_word():
    found = split_words(["a", " ", "", "", "é", "t", "", "é"])
    assert [(word.text, list(word.tokens)) for word in found] == [("a", [0]), ("été", [2, 3, 4, 5, 6, 7])]


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
def test_text_splits_into_words(text: str, words: list[str]):
    assert _texts(text) == words


def test_an_empty_completion_has_no_words():
    assert split_words([]) == []


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8))
def test_no_visible_character_is_lost_and_every_word_has_tokens(tokens: list[str]):
    found = split_words(tokens)
    assert "".join(word.before + word.text for word in found) == "".join(tokens).rstrip()
    for word in found:
        assert all(set(tokens[index]) & set(word.text) for index in word.tokens)
        assert word.tokens


def test_a_word_mean_uses_finite_values_only():
    (word,) = split_words(["an", "s", "wer"])
    assert word_mean(word, [1.0, 2.0, 6.0]) == 3.0
    assert word_mean(word, [1.0, None, float("nan")]) == 1.0
    assert word_mean(word, [None, None, None]) is None
    assert word_mean(word, None) is None


@pytest.mark.parametrize(
    ("text", "form"),
    [("Answer.", "answer"), ("(two", "two"), ("...", "..."), (END, END), ("</Think>", "</think>"), ("x-Ray,", "x-ray")],
)
def test_occurrences_of_a_word_share_a_form(text: str, form: str):
    assert word_form(text) == form

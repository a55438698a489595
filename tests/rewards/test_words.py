import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import tokenize

from rlassay.rewards.words import count_words, stems, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat's hat, v2.", ["the", "cat", "s", "hat", "v2"]),
        ("snake_case", ["snake", "case"]),
        ("今天 iPhone好", ["今", "天", "iphone", "好"]),
        ("Ёлка — дом", ["ёлка", "дом"]),
        ("Ｃａｆé", ["café"]),
        ("🙂 …", []),
    ],
)
def test_words_of_any_script(text, expected):
    assert words(text) == expected


def test_stems_lose_english_endings_of_long_words_only():
    assert stems("cats running was дома") == ["cat", "run", "was", "дома"]


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_english_is_split_as_the_library_splits_it(text):
    assert words(text) == tokenize.tokenize(text, None)


@given(st.text(st.characters(max_codepoint=255)))
def test_scripts_with_blanks_are_counted_between_blanks(text):
    assert count_words(text) == len(text.split())

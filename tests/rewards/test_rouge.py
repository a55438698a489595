"""ROUGE by hand and against the library, and words of any script."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import tokenize
from rouge_score.rouge_scorer import RougeScorer

from rlassay.rewards import REWARDS
from rlassay.rewards.rouge import count_words, rouge_scored, stems, words
from tests.rewards.make import completion, row

ENGLISH = st.lists(st.sampled_from(["cats", "running", "the", "mat.", "Dogs!", "\n", "sat"]), max_size=12).map(" ".join)


def score(name, text, reference):
    return REWARDS[name]([completion(text, of=row(reference, choices=()))])[0]


def test_average_by_hand():
    # R1: 2 of 3 against 2 of 4, F1 4/7; R2: "the cat", 1 of 2 against 1 of 3, F1 2/5; Lsum as R1: (4/7 + 2/5 + 4/7) / 3
    assert score("rouge_average", "the cat ran", "the cat sat down") == pytest.approx((4 / 7 + 2 / 5 + 4 / 7) / 3)


def test_the_parts_of_the_average_are_metrics_by_hand():
    # R1: 3 of 3 against 3 of 4, F1 6/7; no common bigram; the longest common subsequence is 1 of 3 against 1 of 4: 2/7.
    found = rouge_scored([completion("down cat the", of=row("the cat sat down", choices=()))])[0]
    assert found is not None
    parts = {"rouge1": 6 / 7, "rouge2": 0.0, "rougeLsum": 2 / 7, "rougeL": 2 / 7}
    assert found.metrics == pytest.approx(parts)
    assert found.value == pytest.approx((6 / 7 + 0 + 2 / 7) / 3)


def test_parts_follow_without_a_comparison_where_the_average_does():
    same, empty, undefined = (
        rouge_scored([completion(text, of=row(answer, choices=()))])[0]
        for text, answer in (("你好 世界", "你好 世界"), ("...", "a word"), ("a", "..."))
    )
    assert same is not None
    assert set(same.metrics.values()) == {1.0}
    assert empty is not None
    assert empty.metrics == dict.fromkeys(("rouge1", "rouge2", "rougeLsum", "rougeL"), 0.0)
    assert undefined is None


def test_longest_subsequence_by_hand():
    # cat, run (stemmed) of 3 and 4 words: F1 4/7
    assert score("rouge_l", "cats often running", "a cat is run") == pytest.approx(4 / 7)


def test_sentences_are_matched_one_by_one():
    # Lsum finds both sentences in either order; R1 = 1; R2: a b and c d, without b c and d a: 2 of 3.
    assert score("rouge_average", "C d. A b.", "A b. C d.") == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert score("rouge_average", "c d.<n>a b.", "a b.\nc d.") == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert score("rouge_l", "c d. a b.", "a b. c d.") == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["rouge_average", "rouge_l"])
@pytest.mark.parametrize(
    "text", ["今天天气很好。我们去公园。", "Кошка спит на окне. Ей тепло.", "The cat sat. It slept."]
)
def test_the_reference_itself_gives_one_in_any_script(name, text):
    assert score(name, text, text) == pytest.approx(1)
    assert score(name, "xyz", text) == 0
    assert 0 < score(name, text[:6] + " xyz", text) < 1


@pytest.mark.parametrize("name", ["rouge_average", "rouge_l"])
def test_a_completion_without_words_gives_zero(name):
    assert [score(name, *pair) for pair in [("", "a b"), (".", "a b"), ("🙂", "a")]] == [0, 0, 0]


@pytest.mark.parametrize("name", ["rouge_average", "rouge_l"])
def test_an_answer_without_words_gives_none(name):
    assert [score(name, *pair) for pair in [("a b", ""), ("", ""), (".", "."), ("a", "🙂")]] == [None] * 4


def test_an_answer_of_one_word_has_no_bigrams():
    assert score("rouge_average", "Word!", "word") == 1
    # R1 = Lsum: 1 of 2 words against 1 of 1, F1 2/3
    assert score("rouge_average", "a word", "word") == pytest.approx(2 / 3)


@given(ENGLISH, ENGLISH.filter(str.strip))
def test_plain_english_scores_as_the_library_scores_it(text, reference):
    library = RougeScorer(["rougeL"], use_stemmer=True).score(reference, text)
    assert score("rouge_l", text, reference) == pytest.approx(library["rougeL"].fmeasure)
    library = RougeScorer(["rouge1", "rouge2"]).score(reference.replace("\n", " "), text.replace("\n", " "))
    assert score("rouge_average", text, reference) >= sum(each.fmeasure for each in library.values()) / 3 - 1e-12


@pytest.mark.parametrize("name", ["rouge_average", "rouge_l"])
@pytest.mark.parametrize("unit", ["word ", "好", "a. ", "a"])
def test_a_megabyte_is_compared_without_backtracking(name, unit):
    text = unit * (1_000_000 // len(unit))
    score(name, "a", "a")  # import first
    start = time.process_time()
    assert 0 <= score(name, text, text) <= 1
    assert time.process_time() - start < 30  # well under 1 s; one that backtracks takes hours


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


def test_stems_drop_english_endings_of_long_words_only():
    assert stems("cats running was дома") == ["cat", "run", "was", "дома"]


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_english_is_split_as_the_library_splits_it(text):
    assert words(text) == tokenize.tokenize(text, None)


@given(st.text(st.characters(max_codepoint=255)))
def test_scripts_with_blanks_are_counted_between_blanks(text):
    assert count_words(text) == len(text.split())

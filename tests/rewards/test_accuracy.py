"""Option letters (by our parser and the published one), free texts, and sets of actions."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards import REWARDS
from rlassay.rewards.accuracy import extract_choice_as_published
from tests.rewards.make import completion, row

choice_accuracy = REWARDS["choice_accuracy"]
exact_match = REWARDS["exact_match"]
action_set_iou = REWARDS["action_set_iou"]


def test_one_for_the_gold_letter_and_zero_for_anything_else():
    texts = ["<think>3 7</think><answer>B</answer>", "<answer>A</answer>", "7", "", "B or C", "the answer is b"]
    assert choice_accuracy([completion(text) for text in texts]) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_each_completion_is_scored_against_its_own_row():
    rows = [row("A"), row("B"), row("D", choices=("3", "7", "1"))]  # no D among three options
    assert choice_accuracy([completion("Answer: A", of=rows[0]), completion("Answer: A", of=rows[1])]) == [1.0, 0.0]
    assert choice_accuracy([completion("Answer: D", of=rows[2])]) == [0.0]


def test_a_row_without_choices_gives_none():
    assert choice_accuracy([completion("Answer: B", of=row("7", choices=()))]) == [None]


def test_an_empty_group_has_no_rewards():
    assert choice_accuracy([]) == []


def test_strict_source_keeps_the_published_misreadings():
    texts = ["The answer is a big dog", "<think>Answer: A", "<answer>B</answer>", "选Ａ项"]
    group = [completion(text, of=row("A")) for text in texts]
    assert choice_accuracy(group, strict_source=True) == [1.0, 1.0, 0.0, 0.0]
    assert choice_accuracy(group) == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: B", "B"),
        ("<think>Answer: A</think>\nAnswer: B", "B"),
        ("Final Answer: (C)", "C"),
        ("答案：Ｂ", "B"),
        ("答案是 [D]", "D"),
        ("选项 C", "C"),
        ("My choice: option j", "J"),
        ("Answer: A\nAnswer: B", "B"),  # the last line first
        ("Answer: B\nno cue: C", "B"),
        ("Answer: see (B)", "B"),  # at the end of a line
        ("I like C", "C"),
        ("B or D", "D"),
        ("", None),
        ("dog", None),
        # Misreadings
        ("The answer is a dog.", "A"),
        ("Answer: dog", "D"),
        ("The correct option is clearly B", "C"),
        ("I don't know the answer", "I"),
        ("The answer is not B", "I"),  # the i of `is`
        ("<think>Answer: A", "A"),
        ("Answer: ｂ", None),
        ("选Ａ项", None),
    ],
)
def test_the_published_parser_with_its_misreadings(text, expected):
    assert extract_choice_as_published(text) == expected


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(["answer ", "is", ":", "(", "B", "ı", "选项", "\n"])).map("".join))
)
def test_the_published_parser_gives_a_letter_or_none(text):
    assert extract_choice_as_published(text) in {None, *"ABCDEFGHIJ"}


@pytest.mark.parametrize("unit", ["answer ", "answer is", " ", "<think>", "</think>", "A", "a ", "(", "option\n"])
def test_the_published_parser_reads_a_megabyte_without_backtracking(unit):
    text = "answer" + unit * (1_000_000 // len(unit))
    start = time.process_time()
    extract_choice_as_published(text)
    assert time.process_time() - start < 30  # well under 1 s; one that backtracks takes hours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", 1.0),
        (" 42\n", 1.0),
        ("<think>41</think><answer>42</answer>", 1.0),
        (r"So \boxed{42}.", 1.0),
        ("４２", 1.0),  # NFKC
        ("42.0", 0.0),
        ("It is 42", 0.0),
        ("", 0.0),
    ],
)
def test_exact_match_compares_the_stated_answer(text, expected):
    assert exact_match([completion(text, of=row("42", choices=()))]) == [expected]


def test_exact_match_collapses_whitespace_and_respects_case():
    group = [completion(text, of=row("New  York", choices=())) for text in ("New York", "new york")]
    assert exact_match(group) == [1.0, 0.0]


@pytest.mark.parametrize("gold", [r"\boxed{42}", "<answer>42</answer>", "<think>6 * 7</think>42"])
def test_exact_match_reads_the_gold_answer_as_it_reads_completions(gold):
    group = [completion(text, of=row(gold, choices=())) for text in ("<answer>42</answer>", gold, "41")]
    assert exact_match(group) == [1.0, 1.0, 0.0]


def test_exact_match_gives_none_without_a_gold_answer():
    assert exact_match([completion("", of=row(" ", choices=()))]) == [None]


def overlap(text: str, gold: str) -> float | None:
    return action_set_iou([completion(text, of=row(gold, choices=()))])[0]


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("<answer>(1)(2)</answer>", "<answer>(1) walk (2) run</answer>", 1.0),
        ("<answer>(2) run, (1) walk</answer>", "(1)(2)", 1.0),  # sorted
        ("<answer>(1)(1)(2)</answer>", "(1)(2)", 1.0),  # the sets are equal
        ("<answer>(1)(3)</answer>", "(1)(2)", pytest.approx(1 / 3)),  # {1} of {1, 2, 3}
        ("<answer>(1)</answer>", "(1)(2)", 0.5),
        ("<answer>(3)</answer>", "(1)(2)", 0.0),
        ("<answer>1, 2</answer>", "(1)(2)", 0.0),  # numbers count in brackets only
        ("<answer></answer>", "(1)", 0.0),
        ("(1)(2)", "(1)(2)", 0.0),  # no block
        ("<answer>(1)(2)", "(1)(2)", 0.0),
        ("<answer>(1)</answer><answer>(2)</answer>", "(1)", 1.0),  # the first block counts
        ("<answer>(8)</answer>", "(8) Non of the above", 1.0),
        # No action against no action
        ("<answer>dog</answer>", "none", 0.0),
        ("<answer></answer>", "<answer> </answer>", 1.0),
        ("<answer></answer>", "", 1.0),
        ("<answer>(1)</answer>", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_action_lists_then_overlap_of_sets(text, gold, expected):
    assert overlap(text, gold) == expected


@pytest.mark.parametrize("unit", ["<answer>", "</answer>", "(1)", "("])
def test_actions_in_a_megabyte_are_found_without_backtracking(unit):
    start = time.process_time()
    overlap(unit * (1_000_000 // len(unit)), "(1)")
    assert time.process_time() - start < 30  # well under 1 s; one that backtracks takes hours

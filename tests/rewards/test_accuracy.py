import pytest

from rlassay.rewards import REWARDS
from tests.rewards.make import completion, row

choice_accuracy = REWARDS["choice_accuracy"]
exact_match = REWARDS["exact_match"]


def test_one_for_the_gold_letter_and_zero_for_anything_else():
    texts = ["<think>3 7</think><answer>B</answer>", "<answer>A</answer>", "7", "", "B or C", "the answer is b"]
    assert choice_accuracy([completion(text) for text in texts]) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_each_completion_is_judged_by_its_own_row():
    rows = [row("A"), row("B"), row("D", choices=("3", "7", "1"))]  # no D among three options
    assert choice_accuracy([completion("Answer: A", of=rows[0]), completion("Answer: A", of=rows[1])]) == [1.0, 0.0]
    assert choice_accuracy([completion("Answer: D", of=rows[2])]) == [0.0]


def test_a_row_without_choices_cannot_be_judged():
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


def test_exact_match_takes_runs_of_blanks_for_one_and_minds_capitals():
    group = [completion(text, of=row("New  York", choices=())) for text in ("New York", "new york")]
    assert exact_match(group) == [1.0, 0.0]


@pytest.mark.parametrize("gold", [r"\boxed{42}", "<answer>42</answer>", "<think>6 * 7</think>42"])
def test_exact_match_reads_the_gold_answer_as_it_reads_completions(gold):
    group = [completion(text, of=row(gold, choices=())) for text in ("<answer>42</answer>", gold, "41")]
    assert exact_match(group) == [1.0, 1.0, 0.0]


def test_exact_match_cannot_judge_without_a_gold_answer():
    assert exact_match([completion("", of=row(" ", choices=()))]) == [None]

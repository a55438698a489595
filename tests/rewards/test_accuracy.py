from rlassay.rewards import REWARDS
from tests.rewards.make import completion, row

choice_accuracy = REWARDS["choice_accuracy"]


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

import pytest

from rlassay.rewards import gold
from tests.rewards.make import row


@pytest.mark.parametrize("answer", ["A", "B", "C", "D"])
def test_every_gold_letter_of_a_sound_row_passes(answer):
    assert gold.gold_refusal(row(answer)) is None


def test_all_ten_letters_pass_the_pronoun_included():
    for answer in "ABCDEFGHIJ":
        assert gold.gold_refusal(row(answer, choices=tuple("0123456789"))) is None


@pytest.mark.parametrize("answer", ["7", "E", "b", "A or B", ""])
def test_a_gold_answer_that_is_not_paid_is_refused(answer):
    assert gold.gold_refusal(row(answer)) == "choice_accuracy pays the gold answer 0 of 1"


def test_a_row_that_no_accuracy_reward_can_judge_is_kept():
    assert gold.gold_refusal(row("anything", choices=())) is None


def test_a_reward_that_pays_for_nothing_is_found(monkeypatch):
    generous = lambda completions: [1.0 for _ in completions]  # noqa: E731
    monkeypatch.setitem(gold.GOLD_CHECKED, "choice_accuracy", (generous, 0.0, 1.0))
    assert gold.gold_refusal(row("B")) == "choice_accuracy pays an empty completion 1"

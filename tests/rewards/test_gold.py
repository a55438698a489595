import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards import REWARDS, gold
from tests.rewards.make import completion, row


@pytest.mark.parametrize("answer", ["A", "B", "C", "D"])
def test_every_gold_letter_of_a_valid_row_passes(answer):
    assert gold.gold_refusal(row(answer)) is None


def test_all_ten_letters_pass_including_the_pronoun():
    for answer in "ABCDEFGHIJ":
        assert gold.gold_refusal(row(answer, choices=tuple("0123456789"))) is None


@pytest.mark.parametrize("answer", ["7", "E", "b", "A or B", ""])
def test_a_gold_answer_without_reward_is_refused(answer):
    assert gold.gold_refusal(row(answer)) == "choice_accuracy pays the gold answer 0 of 1"


TEXTS = [
    "42",
    "-1,000.5",
    r"\boxed{\frac{1}{2}}",
    r"The sum is $x^2$, hence \boxed{x^2}",
    "<answer>New  York</answer>",
    "Ｂ",
    "今天天气很好。我们去公园。",
    "Word",
    "<think>so</think>because",
    "(1) walk (2) run",
    "<answer>(1)(1)(2)</answer>",
    "(8) Non of the above",
    "... 🙂",
    "The cat sat.<n>It slept." * 400,
]


@pytest.mark.parametrize("answer", TEXTS, ids=lambda text: text[:20])
def test_every_free_answer_passes(answer):
    assert gold.gold_refusal(row(answer, choices=())) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_is_worth_the_maximum_as_its_own_gold_answer(answer):
    assert gold.gold_refusal(row(answer, choices=())) is None


def test_the_check_starts_no_process(monkeypatch):
    """A gold answer equals itself as text; math-verify would take milliseconds for each of a million rows."""
    monkeypatch.setattr("rlassay.rewards.mathematics.score_in_worker", None)
    for answer in TEXTS:
        assert gold.gold_refusal(row(answer, choices=())) is None


@pytest.mark.parametrize("name", [name for name in gold.GOLD_CHECKED if name != "choice_accuracy"])
@pytest.mark.parametrize(
    ("worth", "reason"),
    [([0.5, 0.0], "{} pays the gold answer 0.5 of 1"), ([1.0, 0.2], "{} pays an empty completion 0.2")],
)
def test_every_reward_checks_the_rows_that_it_is_made_for(monkeypatch, name, worth, reason):
    _, gold_completion = gold.GOLD_CHECKED[name]
    monkeypatch.setitem(gold.GOLD_CHECKED, name, (lambda _: worth, gold_completion))
    assert gold.gold_refusal(row("(1) walk", choices=())) == reason.format(name)


def test_a_reward_for_other_rows_checks_nothing(monkeypatch):
    """`action_set_iou` gives 0 for any completion if the gold answer names no action."""
    assert gold.action_set_iou([completion("<answer>dog</answer>", of=row("dog", choices=()))]) == [0.0]
    assert gold.gold_refusal(row("dog", choices=())) is None


def test_each_checked_reward_is_in_the_registry():
    assert all(REWARDS[name] is reward for name, (reward, _) in gold.GOLD_CHECKED.items())

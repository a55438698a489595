from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rlassay.rewards import REWARDS
from rlassay.rewards.sandbox.child_process import child_process
from rlassay.rewards.sandbox.guard import guarded
from rlassay.rewards.sandbox.isolation import WORKER
from tests.rewards.make import completion, row

math_accuracy = REWARDS["math_accuracy"]
GOLD, SLOW = "(x+1)^{100000}", "<answer>(x+2)^{100000}</answer>"  # sympy takes minutes to compare these


def score(text: str, gold: str, **options) -> float | None:
    return math_accuracy([completion(text, of=row(gold, choices=()))], **options)[0]


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        # Plain numbers
        ("<think>6 * 7</think><answer>42</answer>", "42", 1.0),
        (r"So it is \boxed{1,000}.", "1000", 1.0),
        ("<answer>42.00</answer>", "42", 1.0),
        ("<answer>-42</answer>", "42", 0.0),
        ("<answer>41</answer>", "42", 0.0),
        ("", "42", 0.0),
        ("<answer>42</answer>", " ", None),
        ("<answer>42</answer>", r"So it is \boxed{42}", 1.0),
        ("<answer>41</answer>", "<answer>42</answer>", 0.0),
        # Formulas and prose
        (r"<answer>\frac{1}{2}</answer>", "0.5", 1.0),
        ("<answer>1/2</answer>", r"\frac{1}{2}", 1.0),
        (r"Hence $x^2+2x+1$", "(x+1)^2", 1.0),
        ("<answer>x^2+2x+2</answer>", "(x+1)^2", 0.0),
        ("<answer>{2, 1}</answer>", r"\{1, 2\}", 1.0),
        ("The answer is 42.", "42", 1.0),
        ("<answer>5 apples</answer>", "5", 1.0),
        ("<answer>dog</answer>", "5", 0.0),
        ("<answer>}{\\frac</answer>", "5", 0.0),
    ],
)
def test_equal_in_mathematics(text, gold, expected):
    assert score(text, gold) == expected


def test_threads_may_call_it():
    texts = [rf"<answer>\frac{{{i}}}{{2}}</answer>" for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda text: score(text, "1.5"), texts))
    assert values == [float(i == 3) for i in range(8)]


def test_a_slow_comparison_gives_none_and_the_next_one_is_scored():
    assert score("<answer>1/3</answer>", "2/6") == 1.0
    assert score(SLOW, GOLD, timeout=0.5) is None
    assert score("<answer>1/3</answer>", "2/6", timeout=60) == 1.0


def test_in_the_worker_it_compares_in_process_and_a_slow_comparison_costs_one_completion():
    group = [completion(text, of=row(GOLD, choices=())) for text in (f"<answer>{GOLD}</answer>", SLOW, "")]
    reward = guarded("math_accuracy", {}, timeout=2.0, max_failures=0.5)
    assert reward(group) == [1.0, None, 0.0]
    assert reward([completion("<answer>1/3</answer>", of=row("2/6", choices=()))]) == [1.0]
    assert reward.failures == {"timeout": 1}
    worker = child_process(WORKER).pid()
    assert worker is not None
    assert psutil.Process(worker).children() == []


def test_its_own_timeout_overrides_that_of_the_study():
    reward = guarded("math_accuracy", {"timeout": 0.5}, timeout=3600.0, max_failures=1.0)
    assert reward([completion(SLOW, of=row(GOLD, choices=()))]) == [None]

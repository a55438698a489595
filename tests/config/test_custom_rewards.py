"""Rewards of the user's own in a study file."""

import pytest

from rlassay.config import StudyError
from rlassay.config.load import resolve_study
from tests.config.studies import content, study

OWN = {"weight": 1.0, "kind": "custom", "path": "tests/rewards/mine.py:tuned", "options": {"scale": 2.0}}


def test_any_number_of_rewards_of_ones_own_under_any_name():
    rewards = study(rewards__brevity=OWN, rewards__second_one=OWN | {"weight": 0.0, "options": {}}).rewards
    assert {"brevity", "second_one"} < rewards.keys()
    arguments = {"path": "tests/rewards/mine.py:tuned", "batch": False, "options": {"scale": 2.0}}
    assert rewards["brevity"].arguments == arguments
    old = {"weight": 1.0, "options": {"path": "tests/rewards/mine.py:half"}}
    assert study(rewards__custom=old).rewards["custom"].arguments == old["options"]


@pytest.mark.parametrize(
    ("name", "edits", "problem"),
    [
        ("brevity", {"path": None}, "rewards.brevity.path: missing; expected a Python file, a colon and a function"),
        ("brevity", {"path": "mine.py"}, "rewards.brevity.path: got 'mine.py'; expected a Python file, a colon"),
        ("brevity", {"options": {"scle": 1}}, "rewards.brevity.options: mine.py:tuned(item: "),
        ("a.b", {}, "rewards.a.b: expected a name of letters, digits, _ and - that begins with a letter"),
        ("judge", {}, "rewards.judge: kind is custom, but judge is the name of a built-in reward or metric"),
        ("truncated", {}, "rewards.truncated: kind is custom, but truncated is the name of a built-in reward"),
        ("think_format", {"kind": None}, "rewards.think_format: path and batch belong to a reward of your own"),
    ],
)
def test_what_is_wrong_with_a_reward_of_ones_own(name, edits, problem):
    edited = content()
    edited["rewards"][name] = OWN | edits
    with pytest.raises(StudyError) as caught:
        resolve_study(edited)
    assert any(each.startswith(problem) for each in caught.value.problems), caught.value.problems

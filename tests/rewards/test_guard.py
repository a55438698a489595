import logging
import math
from pathlib import Path

import numpy as np
import pytest

from rlassay.rewards import REWARDS, is_per_sample
from rlassay.rewards.outcomes import Failure, WrongOutputError, judged
from rlassay.rewards.sandbox.guard import MINIMUM, TooManyFailuresError, guarded, here
from tests.rewards.make import completion

# MERGED FROM test_guard.py:

GROUP = [completion(str(index)) for index in range(8)]
TROUBLE = Path(__file__).parent / "trouble.py"


def failing(count, **limits):
    """A reward that gives NaN to the first `count` of a group, and 1 to the rest."""
    return here("probe", lambda group: [math.nan if int(each.text) < count else 1.0 for each in group], {}, **limits)


def test_failures_are_none_and_counted_by_kind(caplog):
    reward = failing(1)
    with caplog.at_level(logging.WARNING):
        assert reward(GROUP) == [None, *[1.0] * 7]
        reward(GROUP)
    assert (reward.counts, reward.total) == ({"not_finite": 2}, 16)
    assert reward.summary() == "reward probe: 2 of 16 completions failed (2 not_finite)"
    assert caplog.messages == [
        "reward probe: not_finite on prompt p: got nan. Such completions are not judged, and counted as failed."
    ]


def test_too_high_a_rate_stops_the_run_with_all_that_is_needed():
    reward = failing(1, max_failures=0.1)
    # 1 of 8 is 12.5 %, but a rate needs 32 completions.
    for _ in range(MINIMUM // 8 - 1):
        reward(GROUP)
    with pytest.raises(TooManyFailuresError) as stopped:
        reward(GROUP)
    assert str(stopped.value) == (
        "reward probe: 4 of 32 completions failed (4 not_finite): 12.5%, allowed are 10.0%; the first not_finite, "
        "prompt p: got nan. To go on, mend the reward, or raise rewards.probe.max_failures or, for time-outs, "
        "rewards.probe.timeout in the study, and run the same command again."
    )


def test_the_allowed_rate_itself_stops_nothing():
    reward = failing(1, max_failures=0.125)
    for _ in range(20):
        assert reward(GROUP)[0] is None


def test_without_tolerance_one_failure_of_many_stops():
    reward = here("probe", lambda group: [1.0] * len(group), {}, max_failures=0.0)
    for _ in range(10):
        reward(GROUP)
    reward.judge = lambda group: [Failure(kind="crash", text="SIGSEGV")] * len(group)
    with pytest.raises(TooManyFailuresError, match="8 of 88 completions failed"):
        reward(GROUP)


def test_a_wrong_output_names_the_reward_and_the_prompt():
    with pytest.raises(WrongOutputError, match=r"^reward probe, prompt p: got 1 values for 8 completions$"):
        here("probe", lambda group: [1.0], {})(GROUP)


def test_what_else_is_logged_of_some_rewards():
    balance = guarded("modality_balance", {}, timeout=1.0, max_failures=0.5)
    assert balance.figures([-1.0, 1.0, 0.25, -1.0]) == {"saturated": 0.75}
    assert balance.figures([]) == {}
    values = [0.5, 0.0, 0.5, 1.0]
    for options, share in (({}, 0.5), ({"form": "tanh"}, 0.25), ({"hard_negative": True}, 0.25)):
        assert guarded("vision_gain", options, timeout=1.0, max_failures=0.5).figures(values) == {"neutral": share}
    assert failing(1).figures(values) == {}


def test_rewards_judge_in_the_worker_or_in_a_process_of_their_own(monkeypatch):
    path = {"path": f"{TROUBLE}:does_as_told"}
    group = [completion("os._exit"), completion("b", token_count=2)]
    assert guarded("custom", path, timeout=60.0, max_failures=0.5)(group) == [None, 0.2]
    monkeypatch.setattr("rlassay.rewards.sandbox.guard.IN_THEIR_OWN_PROCESS", {"custom"})
    reward = guarded("custom", path, timeout=60.0, max_failures=0.5)
    assert reward([completion("raise"), completion("b", token_count=2)]) == [None, 0.2]
    with pytest.raises(SystemExit):
        reward([completion("sys.exit")])


@pytest.mark.parametrize(
    ("name", "options", "per_sample"),
    [
        ("choice_accuracy", {}, True),
        ("vision_gain", {}, False),
        ("custom", {}, True),
        ("custom", {"batch": False}, True),
        ("custom", {"batch": True}, False),
    ],
)
def test_which_rewards_judge_completions_singly(name, options, per_sample):
    assert is_per_sample(name, options) == per_sample


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_a_reward_that_judges_singly_says_of_each_what_it_says_of_all(name):
    options = {"soft_overlong": {"max_completion_length": 9, "cache": 4}}.get(name, {})
    options = {"accuracy_conditioned_length": {"max_completion_length": 9}}.get(name, options)
    options = {"custom": {"path": f"{TROUBLE}:does_as_told"}}.get(name, options)
    if is_per_sample(name, options):
        group = [completion("<answer>B</answer>"), completion("<think>a</think>", token_count=8)]
        alone = [REWARDS[name]([each], **options)[0] for each in group]
        assert REWARDS[name](group, **options) == alone


# MERGED FROM test_outcomes.py:

OUTCOMES_GROUP = [completion(text) for text in "abc"]


def outcomes(values, *, per_sample=False, caught=Exception):
    """Of a reward that gives `values`, or of one completion those of its letter."""

    def reward(group, **options):
        assert options == {"scale": 2}
        return [values["abc".index(each.text)] for each in group] if per_sample else values

    return [
        each
        for part in judged(reward, {"scale": 2}, OUTCOMES_GROUP, per_sample=per_sample, caught=caught)
        for each in part
    ]


@pytest.mark.parametrize("per_sample", [False, True])
def test_numbers_and_none_pass(per_sample):
    values = outcomes([1, None, np.float32(0.5)], per_sample=per_sample)
    assert values == [1.0, None, 0.5]
    assert [type(value) for value in values] == [float, type(None), float]


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "got nan"), (-math.inf, "got -inf"), (10**400, "got inf"), (np.nan, "got nan")]
)
@pytest.mark.parametrize("per_sample", [False, True])
def test_what_is_not_finite_fails_alone(value, text, per_sample):
    assert outcomes([1.0, value, 0.0], per_sample=per_sample) == [1.0, Failure(kind="not_finite", text=text), 0.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "got 2 values for 3 completions"),
        ([1.0] * 4, "got 4 values for 3 completions"),
        (1.0, "got 1.0, expected a list of 3 values"),
        ("abc", "got 'abc', expected a list of 3 values"),
        ([1.0, "2", 3.0], "got '2', expected a number or None"),
        ([1.0, 2j, 3.0], r"got 2j, expected a number or None"),
    ],
)
def test_what_is_no_list_of_numbers_is_an_error(values, message):
    with pytest.raises(WrongOutputError, match=message):
        outcomes(values)


def failing_outcomes(error, *, per_sample, caught=Exception):
    def reward(group, **options):
        if any(each.text == "b" for each in group):
            raise error
        return [1.0 for _ in group]

    return [each for part in judged(reward, {}, OUTCOMES_GROUP, per_sample=per_sample, caught=caught) for each in part]


def test_an_exception_costs_one_completion_or_the_group():
    failure = Failure(kind="error", text="KeyError: 'gold'")
    assert failing_outcomes(KeyError("gold"), per_sample=True) == [1.0, failure, 1.0]
    assert failing_outcomes(KeyError("gold"), per_sample=False) == [failure] * 3


def test_only_what_shall_be_caught_is():
    with pytest.raises(SystemExit):
        failing_outcomes(SystemExit(3), per_sample=True)
    assert failing_outcomes(SystemExit(3), per_sample=True, caught=BaseException)[1] == Failure(
        kind="error", text="SystemExit: 3"
    )


def test_a_reward_may_say_itself_that_its_output_is_wrong():
    with pytest.raises(WrongOutputError, match="no list"):
        failing_outcomes(WrongOutputError("no list"), per_sample=True, caught=BaseException)

"""Failures of a guarded reward: None, a count, and an end of the run when they are too many."""

import logging
import math
from pathlib import Path

import pytest

from rlassay.rewards import REWARDS, is_per_sample
from rlassay.rewards.outcomes import Failure, InvalidOutputError, Scored
from rlassay.rewards.sandbox.guard import MINIMUM, TooManyFailuresError, guarded, in_process
from tests.rewards.make import completion

GROUP = [completion(str(index)) for index in range(8)]
TROUBLE = Path(__file__).parent / "trouble.py"


def failing(count, **limits):
    """A reward that gives NaN to the first `count` of a group, and 1 to the rest."""
    return in_process(
        "probe", lambda group: [math.nan if int(each.text) < count else 1.0 for each in group], {}, **limits
    )


def test_failures_are_none_and_counted_by_kind(caplog):
    reward = failing(1)
    with caplog.at_level(logging.WARNING):
        assert reward(GROUP) == [None, *[1.0] * 7]
        reward(GROUP)
    assert (reward.failures, reward.total) == ({"not_finite": 2}, 16)
    assert reward.summary() == "reward probe: 2 of 16 completions failed (2 not_finite)"
    assert caplog.messages == [
        "reward probe failed (not_finite) on prompt p: got nan. "
        "Completions on which it fails get no value; their number is logged."
    ]


def test_too_many_failures_stop_the_run_with_a_remedy():
    reward = failing(1, max_failures=0.1)
    # 1 of 8 is 12.5 %, but a rate needs 32 completions.
    for _ in range(MINIMUM // 8 - 1):
        reward(GROUP)
    with pytest.raises(TooManyFailuresError) as stopped:
        reward(GROUP)
    assert str(stopped.value) == (
        "reward probe: 4 of 32 completions failed (4 not_finite): 12.5%, more than the 10.0% allowed; the first "
        "not_finite, prompt p: got nan. Fix the reward, or raise rewards.probe.max_failures or, for timeouts, "
        "rewards.probe.timeout in the study; then run the same command again."
    )


def test_exactly_the_allowed_rate_does_not_stop_the_run():
    reward = failing(1, max_failures=0.125)
    for _ in range(20):
        assert reward(GROUP)[0] is None


def test_with_no_failures_allowed_one_of_many_stops_the_run():
    reward = in_process("probe", lambda group: [1.0] * len(group), {}, max_failures=0.0)
    for _ in range(10):
        reward(GROUP)
    reward.score = lambda group: [Failure(kind="crash", text="SIGSEGV")] * len(group)
    with pytest.raises(TooManyFailuresError, match="8 of 88 completions failed"):
        reward(GROUP)


def test_an_invalid_output_names_the_reward_and_the_prompt():
    with pytest.raises(InvalidOutputError, match=r"^reward probe, prompt p: got 1 values for 8 completions$"):
        in_process("probe", lambda group: [1.0], {})(GROUP)


def test_some_rewards_have_extra_metrics():
    balance = guarded("modality_balance", {}, timeout=1.0, max_failures=0.5)
    assert balance.extra_metrics([-1.0, 1.0, 0.25, -1.0]) == {"saturated": 0.75}
    assert balance.extra_metrics([]) == {}
    values = [0.5, 0.0, 0.5, 1.0]
    for options, share in (({}, 0.5), ({"form": "tanh"}, 0.25), ({"hard_negative": True}, 0.25)):
        assert guarded("vision_gain", options, timeout=1.0, max_failures=0.5).extra_metrics(values) == {
            "neutral": share
        }
    assert failing(1).extra_metrics(values) == {}


def test_rewards_run_in_the_worker_or_in_this_process(monkeypatch):
    path = {"path": f"{TROUBLE}:obeys"}
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
def test_which_rewards_score_completions_one_by_one(name, options, per_sample):
    assert is_per_sample(name, options) == per_sample


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_a_separable_reward_gives_the_same_values_one_by_one(name):
    options = {"soft_overlong": {"max_completion_length": 9, "cache": 4}}.get(name, {})
    options = {"accuracy_conditioned_length": {"max_completion_length": 9}}.get(name, options)
    options = {"custom": {"path": f"{TROUBLE}:obeys"}}.get(name, options)
    if is_per_sample(name, options):
        group = [completion("<answer>B</answer>"), completion("<think>a</think>", token_count=8)]
        alone = [REWARDS[name]([each], **options)[0] for each in group]
        assert REWARDS[name](group, **options) == alone


def test_a_reward_of_the_users_own_goes_under_any_name_and_keeps_its_metrics(tmp_path):
    (tmp_path / "own.py").write_text("def reward(item, scale):\n    return scale, {'twice': 2 * scale}\n")
    section = {"path": f"{tmp_path}/own.py:reward", "batch": False, "options": {"scale": 0.5}}
    reward = guarded("brevity", section, function="custom", timeout=60.0, max_failures=0.5)
    assert reward.name == "brevity"
    assert reward.outcomes([completion("a")]) == [Scored(value=0.5, metrics={"twice": 1.0})]
    assert reward([completion("a")]) == [0.5]

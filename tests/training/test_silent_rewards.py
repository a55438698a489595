import logging

import pytest

from rlassay.training.silent_rewards import MINIMUM, SilentRewards


def test_it_warns_once_of_each_reward_that_says_nothing_in_most_groups(caplog: pytest.LogCaptureFixture):
    watch = SilentRewards()
    with caplog.at_level(logging.WARNING):
        # 7 of 8 groups are 87.5 %; the other reward is silent in 6 of 8.
        for _ in range(MINIMUM // 8 - 1):
            watch({"balance": 0.875, "form": 0.75}, 8)
        assert caplog.messages == []
        for _ in range(3):
            watch({"balance": 0.875, "form": 0.75}, 8)
    (message,) = caplog.messages
    assert message.startswith("reward balance says the same of all completions of a prompt in 88 % of 64 groups so far")
    assert watch.silent == {"balance": 70, "form": 60}


def test_a_reward_that_was_silent_at_first_only_is_not_mentioned(caplog: pytest.LogCaptureFixture):
    watch = SilentRewards()
    with caplog.at_level(logging.WARNING):
        watch({"form": 1.0}, MINIMUM - 1)
        watch({"form": 0.0}, MINIMUM)
        watch({}, MINIMUM)
    assert caplog.messages == []

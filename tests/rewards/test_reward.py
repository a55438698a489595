"""Decorators that make rewards, the check of their options, and the registry."""

import inspect
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlassay.records import Completion
from rlassay.rewards import IN_THEIR_OWN_PROCESS, REWARDS, check_reward_options
from rlassay.rewards.reward import Reward, check_options, is_separable, per_completion, separable, with_options
from tests.rewards.make import completion

LENGTH = {"max_completion_length": 16, "cache": 4}
OPTIONS: dict[str, dict[str, object]] = {
    "soft_overlong": LENGTH,
    "accuracy_conditioned_length": {"max_completion_length": 16},
    "custom": {"path": f"{Path(__file__).parent / 'mine.py'}:half"},
}
"""Options of the rewards that need some."""


def test_the_key_is_the_name_of_the_function():
    assert {name: reward.__name__ for name, reward in REWARDS.items()} == {name: name for name in REWARDS}


def test_every_reward_gives_one_value_per_completion():
    group = [completion("<answer>B</answer>"), completion(""), completion("B")]
    for name in REWARDS.keys() - IN_THEIR_OWN_PROCESS:  # those need a model
        assert len(REWARDS[name](group, **OPTIONS.get(name, {}))) == 3


def test_every_reward_can_be_sent_to_another_process():
    for reward in REWARDS.values():
        assert pickle.loads(pickle.dumps(reward)) is reward


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("choice_accuracy", {}),
        ("choice_accuracy", {"strict_source": True}),
        ("modality_balance", {"ratio": 8, "signal": "modality_dominance/all"}),
        ("vision_gain", {"form": "tanh", "hard_negative": True, "sigma": 2.0}),
        ("think_answer_format", {}),
        ("soft_overlong", LENGTH),
        ("soft_overlong", LENGTH | {"cache": 0}),
    ],
)
def test_valid_options_pass(name, options):
    check_reward_options(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("choice_acuracy", {}, "reward: got 'choice_acuracy', expected one of .*; did you mean 'choice_accuracy'?"),
        (
            "nothing_alike",
            {},
            "reward: got 'nothing_alike', expected one of .*choice_accuracy, .*think_answer_format, [a-z_, ]*$",
        ),
        ("think_format", {"strict": True}, "unknown option 'strict'; it takes no options"),
        ("choice_accuracy", {"strict": True}, "unknown option 'strict'; expected strict_source"),
        ("choice_accuracy", {"strict_source": 1}, "option 'strict_source': got 1; expected bool"),
        ("math_accuracy", {"timeout": 0}, "timeout: got 0; expected more than 0 seconds"),
        ("custom", {}, "option 'path' is missing; expected str"),
        ("custom", {"path": "mine.py"}, "path: got 'mine.py'; expected a Python file, a colon and a function"),
        ("custom", {"path": "none.py:f"}, "path: no file .*none.py"),
        ("length_similarity", {"scale": 0}, "scale: got 0; expected more than 0"),
        ("accuracy_conditioned_length", {"max_completion_length": 0}, "got 0; expected at least 1 token"),
        ("vision_gain", {"form": "mad"}, "option 'form': got 'mad'; expected one of 'quantile', 'tanh'"),
        ("vision_gain", {"min_spread": -1}, "min_spread: got -1; expected 0 or more"),
        ("vision_gain", {"sigma": 0}, "sigma: got 0; expected more than 0"),
        ("modality_balance", {"ratio": "2"}, "option 'ratio': got '2'; expected int or float"),
        ("modality_balance", {"ratio": 1}, "ratio: got 1; expected more than 1"),
        (
            "soft_overlong",
            LENGTH | {"cach": 1},
            "unknown option 'cach'; expected one of cache, max_.*; did you mean 'cache'?",
        ),
        ("soft_overlong", {"cache": 4}, "option 'max_completion_length' is missing; expected int"),
        ("soft_overlong", LENGTH | {"cache": "4"}, "option 'cache': got '4'; expected int"),
        ("soft_overlong", LENGTH | {"cache": 4.0}, "option 'cache': got 4.0; expected int"),
        ("soft_overlong", LENGTH | {"cache": True}, "option 'cache': got True; expected int"),
        ("soft_overlong", LENGTH | {"cache": -1}, r"cache: got -1; expected 0 to max_completion_length \(16\) tokens"),
        ("soft_overlong", LENGTH | {"cache": 17}, r"cache: got 17; expected 0 to max_completion_length \(16\) tokens"),
        ("soft_overlong", LENGTH | {"max_completion_length": 0}, "max_completion_length: got 0; expected at least 1"),
    ],
)
def test_invalid_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        check_reward_options(name, options)


@per_completion
def share_of_limit(completion: Completion, *, limit: int = 10) -> float | None:
    return completion.token_count / limit if completion.token_count else None


@separable
def token_counts(completions) -> list[float | None]:
    return [float(each.token_count) for each in completions]


def test_per_completion_scores_each_completion_with_the_same_options():
    group = [completion(token_count=count) for count in (5, 0, 20)]
    assert share_of_limit(group) == [0.5, None, 2.0]
    assert share_of_limit(group, limit=20) == [0.25, None, 1.0]
    assert share_of_limit.__name__ == "share_of_limit"


def test_a_reward_is_separable_only_if_it_is_declared_so():
    assert is_separable(share_of_limit)
    assert is_separable(token_counts)
    assert not is_separable(scaled)


@dataclass(frozen=True, kw_only=True)
class Scale:
    factor: float
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.factor == 0:
            raise ValueError("factor: got 0")


@with_options(Scale)
def scaled(completions, options: Scale) -> list[float | None]:
    """Length times a factor."""
    return [options.factor * len(each.text) + options.shift for each in completions]


def test_with_options_turns_fields_into_options():
    assert scaled([completion("ab"), completion("")], factor=3.0) == [7.0, 1.0]
    assert scaled([completion("ab")], factor=3.0, shift=2.0) == [8.0]


def test_the_signature_lists_the_fields():
    parameters = inspect.signature(scaled).parameters
    assert list(parameters) == ["completions", "factor", "shift"]
    assert (scaled.__name__, scaled.__doc__) == ("scaled", "Length times a factor.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'factor' is missing; expected float"),
        ({"factor": "x"}, "option 'factor': got 'x'; expected float"),
        ({"factor": 1.0, "shfit": 1}, "did you mean 'shift'"),
        ({"factor": 0.0}, "factor: got 0"),
    ],
)
def test_fields_are_checked_as_options_are(options, message):
    rewards: dict[str, Reward] = {"scaled": scaled}
    with pytest.raises(ValueError, match=message):
        check_options("scaled", options, rewards)

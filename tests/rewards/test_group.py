import pytest

from rlassay.rewards import group, score_group
from tests.rewards.make import completion

GROUP = [completion("<think></think><answer>B</answer>", token_count=8), completion("I don't know", token_count=2)]


def test_every_reward_with_its_options():
    asked = {"choice_accuracy": {}, "soft_overlong": {"max_completion_length": 10, "cache": 4}, "modality_balance": {}}
    assert score_group(asked, GROUP) == {
        "choice_accuracy": [1.0, 0.0],
        "soft_overlong": [-0.5, 0.0],
        "modality_balance": [None, None],
    }
    assert score_group({}, GROUP) == {}


def test_an_unknown_reward_is_named():
    with pytest.raises(ValueError, match="unknown reward 'accuracy'; known: accuracy_conditioned_length"):
        score_group({"accuracy": {}}, GROUP)


def test_a_reward_of_wrong_length_is_named():
    with pytest.raises(ValueError, match="reward short: got 1 values for 2 completions"):
        group.score_with({"short": {}}, GROUP, {"short": lambda completions: [1.0]})

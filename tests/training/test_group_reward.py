import math
from typing import Any

import pytest

from rlassay.ranks import PROGRESS
from rlassay.records import Completion, PromptRow
from rlassay.rewards.sandbox.guard import in_process
from rlassay.training.group_reward import GroupReward, failure_counts

END = 1
ROWS = {key: PromptRow(prompt_id=key, question=f"What is {key}?", answer=key) for key in ("a", "b")}


def adapted(reward: Any, **options: Any) -> GroupReward:
    return GroupReward(in_process("probe", reward, options), rows=ROWS, num_generations=2, end_token_ids=[END, 0])


def batch(*texts: str) -> dict[str, Any]:
    """Two completions of prompt a, then two of prompt b, each of two tokens and the end."""
    return {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[7, 8, END] for _ in texts],
        "prompt_id": ["a", "a", "b", "b"][: len(texts)],
        "prompts": ["not looked at"] * len(texts),
    }


def test_a_reward_sees_one_group_at_a_time_with_its_row():
    seen: list[list[Completion]] = []

    def reward(completions: list[Completion], bonus: float) -> list[float]:
        seen.append(completions)
        return [len(completion.text) + bonus for completion in completions]

    # Lengths 1, 2, 3, 4 and a bonus of .5.
    assert adapted(reward, bonus=0.5)(**batch("x", "xx", "xxx", "xxxx")) == [1.5, 2.5, 3.5, 4.5]
    assert [[completion.text for completion in group] for group in seen] == [["x", "xx"], ["xxx", "xxxx"]]
    assert [group[0].row.answer for group in seen] == ["a", "b"]


def test_a_rank_may_wait_for_a_reward():
    def reward(completions: list[Completion]) -> list[float]:
        return [float(PROGRESS._patient)] * len(completions)

    assert adapted(reward)(**batch("x", "y")) == [1.0, 1.0]
    assert PROGRESS._patient == 0


def test_token_count_includes_the_end_and_a_completion_without_it_is_truncated():
    completions: list[Completion] = []

    def reward(group: list[Completion]) -> list[float]:
        completions.extend(group)
        return [0.0, 0.0]

    given = batch("x", "y")
    given["completion_ids"] = [[7, END], [7, 8, 9]]
    adapted(reward)(**given)
    assert [(completion.token_count, completion.finished) for completion in completions] == [(2, True), (3, False)]


def test_a_reward_sees_what_the_template_prefilled():
    seen: list[str] = []

    def reward(group: list[Completion]) -> list[float]:
        seen.extend(completion.text for completion in group)
        return [0.0, 0.0]

    guard = in_process("probe", reward, {})
    ours = GroupReward(guard, rows=ROWS, num_generations=2, end_token_ids=[END], prefilled="<think>")
    ours(**batch("x</think>", "y"))
    assert seen == ["<think>x</think>", "<think>y"]


def test_none_is_passed_on():
    assert adapted(lambda group: [None, 1])(**batch("x", "y")) == [None, 1]


def test_trl_finds_the_reward_by_its_name():
    assert adapted(lambda group: [0.0, 0.0]).__name__ == "probe"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"reward probe, prompt a: got 1 values for 2 completions"),
        ([1.0, 2.0, 3.0], r"got 3 values for 2 completions"),
        ([1.0, "2"], r"got '2', expected a number or None"),
    ],
)
def test_a_wrong_output_is_an_error_that_names_the_reward(values: list[Any], message: str):
    with pytest.raises(ValueError, match=message):
        adapted(lambda group: values)(**batch("x", "y"))


def test_failures_are_none_at_their_place_and_their_kinds_are_kept_until_the_next_batch():
    def reward(group: list[Completion]) -> list[float]:
        if group[0].text == "raise":
            raise KeyError("gold")
        return [math.nan if each.text == "nan" else 1.0 for each in group]

    adapter = adapted(reward)
    assert adapter(**batch("x", "nan", "raise", "y")) == [1.0, None, None, None]
    assert adapter.failed == [None, "not_finite", "error", "error"]
    assert failure_counts(adapter.failed) == {"failed/error": 2, "failed/not_finite": 1}
    assert adapter(**batch("x", "y")) == [1.0, 1.0]
    assert adapter.failed == [None, None]


def test_a_completion_carries_the_signals_that_were_measured_on_it():
    adapter = adapted(lambda group: [each.signals.get("late") for each in group])
    assert adapter(**batch("x", "y")) == [None, None]
    signals = [{"late": 1.0}, {"late": 2.0}, {}, {"late": 4.0}]
    assert adapter(**batch("x", "y", "z", "w"), completion_signals=signals) == [1.0, 2.0, None, 4.0]
    assert adapter(**batch("x", "y")) == [None, None]  # nothing is left from the batch before


def test_a_batch_must_be_made_of_whole_groups():
    with pytest.raises(ValueError, match="got 3 completions, expected whole groups of 2"):
        adapted(lambda group: [0.0, 0.0])(**batch("x", "y", "z"))
    mixed = batch("x", "y") | {"prompt_id": ["a", "b"]}
    with pytest.raises(ValueError, match="completions 0 to 1 belong to several prompts"):
        adapted(lambda group: [0.0, 0.0])(**mixed)

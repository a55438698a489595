"""Which groups are kept, and where their replacements come from."""

import math
import re
from typing import Any

import pytest
import torch

from rlassay.training.algorithms.dynamic_sampling import DynamicSampling, PromptStream, fill, worth_training
from rlassay.training.algorithms.groups import SampledGroup
from tests.training.algorithms.make import group

NAN = math.nan
ROWS = [{"prompt_id": f"p{index}", "prompt": str(index)} for index in range(5)]


def test_a_group_is_kept_if_its_rewards_vary():
    # Three groups of two: 1 and 0 vary; 1 and 1 do not; one scored completion alone cannot vary.
    totals = torch.tensor([1.0, 0.0, 1.0, 1.0, NAN, 2.0])
    assert worth_training(totals, 2).tolist() == [True, False, False]
    # A rounding error is no variance; 1e-5 is.
    assert worth_training(torch.tensor([0.5, 0.5 + 5e-7, 0.5, 0.50001]), 2).tolist() == [False, True]


def test_bounds_are_strict_and_read_the_mean_of_the_filter_reward_alone():
    totals = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    # Means .25 (at the lower bound), .5, .75 (at the upper bound), not scored, and .5 without variance in the total.
    accuracy = torch.tensor([0.5, 0.0, 0.5, 0.5, 1.0, 0.5, NAN, NAN, 1.0, 0.0])
    assert worth_training(totals, 2, accuracy, (0.25, 0.75)).tolist() == [False, True, False, False, False]
    # Of a partly scored group the scored completions count: .5.
    assert worth_training(torch.tensor([1.0, 0.0]), 2, torch.tensor([0.5, NAN]), (0.25, 0.75)).tolist() == [True]


def alive(groups: Any) -> list[bool]:
    """Groups are kept if their name begins with a."""
    return [each.prompt_id.startswith("a") for each in groups]


def names(groups: list[SampledGroup]) -> list[str]:
    return [each.prompt_id for each in groups]


def test_rounds_go_on_until_the_batch_is_full():
    rounds = [["a2", "b2"], ["a3", "a4"]]
    asked: list[int] = []

    def resample(missing: int) -> list[SampledGroup]:
        asked.append(missing)
        return [group(name, [1.0, 0.0]) for name in rounds.pop(0)]

    filled = fill([group(name, [1.0, 0.0]) for name in ("b0", "a1", "b1")], alive, resample, max_resample=5)
    assert asked == [2, 1]
    assert names(filled.groups) == ["a1", "a2", "a3"]
    assert names(filled.dropped) == ["a4", "b0", "b1", "b2"]  # the surplus too
    assert (filled.rounds, filled.unfilled) == (3, 0)


def test_when_rounds_are_used_up_rejected_groups_fill_the_batch_in_their_order():
    filled = fill(
        [group(name, [1.0, 0.0]) for name in ("b0", "a1", "b1", "b2")],
        alive,
        lambda missing: [group(f"b{missing}", [1.0, 0.0]) for _ in range(missing)],
        max_resample=2,
    )
    assert names(filled.groups) == ["a1", "b0", "b1", "b2"]
    assert len(filled.dropped) == 6  # two rounds of three
    assert (filled.rounds, filled.unfilled) == (3, 3)


def taken(stream: PromptStream, count: int, avoid: set[str] | None = None) -> list[str]:
    return [row["prompt_id"] for row in stream.take(count, set() if avoid is None else avoid)]


def test_a_pass_draws_every_prompt_once_in_an_order_of_the_seed():
    stream = PromptStream(ROWS, seed=3, revisit=1.0)
    first, second = taken(stream, 5), taken(stream, 5)
    assert sorted(first) == sorted(second) == [f"p{index}" for index in range(5)]
    assert first != second  # another order (by this seed)
    assert taken(PromptStream(ROWS, seed=3, revisit=1.0), 5) == first
    assert taken(PromptStream(ROWS, seed=4, revisit=1.0), 5) != first


def test_prompts_of_the_batch_are_passed_over_unless_there_are_no_others():
    stream = PromptStream(ROWS, seed=0, revisit=1.0)
    avoid = {"p0", "p1", "p2"}
    assert sorted(taken(stream, 2, avoid)) == ["p3", "p4"]
    assert len(avoid) == 5
    assert len(taken(stream, 3, avoid)) == 3  # a batch is filled even so


def test_a_stream_goes_on_from_its_state():
    whole = PromptStream(ROWS, seed=1, revisit=0.5)
    whole.record("p2", kept=False)
    taken(whole, 4)
    resumed = PromptStream(ROWS, seed=1, revisit=0.5)
    resumed.restore(whole.state())
    assert taken(resumed, 11) == taken(whole, 11)


def test_a_rejected_prompt_comes_back_with_the_power_of_its_rejections():
    stream = PromptStream(ROWS, seed=1, revisit=0.5)
    for _ in range(2):
        stream.record("p0", kept=False)
    accepted = sum(stream.accepts("p0") for _ in range(2000))
    assert accepted / 2000 == pytest.approx(0.25, abs=0.03)  # .5^2; three standard errors
    assert all(stream.accepts("p1") for _ in range(20))
    stream.record("p0", kept=True)
    assert stream.accepts("p0")
    assert stream.rejections == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_resample": 0}, "dynamic_sampling.max_resample: got 0, expected at least 1"),
        ({"revisit": 0.0}, "dynamic_sampling.revisit: got 0.0, expected a probability above 0"),
        ({"filter_low": 0.9, "filter_high": 0.9}, "filter_low: got 0.9, expected less than filter_high 0.9"),
    ],
)
def test_options_out_of_range_are_errors(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        DynamicSampling(**options)

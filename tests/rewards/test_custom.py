import math
from pathlib import Path

import pytest

from rlassay.rewards import REWARDS
from tests.rewards.make import completion

custom = REWARDS["custom"]
MINE = Path(__file__).parent / "mine.py"
GROUP = [completion("B", token_count=4), completion("C", token_count=8)]


def scored(name: str, **options):
    return custom(GROUP, path=f"{MINE}:{name}", **options)


@pytest.mark.parametrize(
    ("name", "batch", "expected"),
    [
        ("half", False, [0.5, 0.5]),
        ("with_metrics", False, [1.0, 0.0]),  # the gold answer is B
        ("with_overall", False, [0.4, 0.8]),
        ("unjudged", False, [None, None]),
        ("longest", True, [0.0, 1.0]),
        ("all_overall", True, [0.4, 0.8]),
    ],
)
def test_both_shapes_of_a_function(name, batch, expected):
    assert scored(name, batch=batch) == expected


def test_nan_is_passed_on_for_the_caller_to_refuse():
    assert all(math.isnan(value) for value in scored("not_a_number"))


@pytest.mark.parametrize(
    ("name", "batch", "message"),
    [
        ("text", False, "got 'good'; expected a number, None"),
        ("too_few", True, "got 1 values for 2 completions"),
        ("with_no_such_name", False, "no function 'with_no_such_name' in .*; it has .*half, with_metrics"),
        ("__name__", False, "no function '__name__'"),
    ],
)
def test_a_wrong_function_is_named(name, batch, message):
    with pytest.raises(ValueError, match=message):
        scored(name, batch=batch)


def test_batch_wants_a_list():
    with pytest.raises(ValueError, match="got a float for a group; expected a list"):
        custom(GROUP, path=f"{MINE}:half", batch=True)


def test_an_edited_file_is_read_again(tmp_path):
    file = tmp_path / "edited.py"
    for value in (1.0, 2.0):
        file.write_text(f"def reward(item):\n    return {value}\n")
        assert custom(GROUP, path=f"{file}:reward") == [value, value]

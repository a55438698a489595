import math
from pathlib import Path

import pytest

from rlassay.records import Media
from rlassay.rewards import REWARDS, check_reward_options
from tests.rewards.make import completion, row

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
        ("without_value", False, [None, None]),
        ("longest", True, [0.0, 1.0]),
        ("all_overall", True, [0.4, 0.8]),
    ],
)
def test_every_accepted_form_of_a_function(name, batch, expected):
    assert scored(name, batch=batch) == expected


@pytest.mark.parametrize(("answer", "expected"), [("a cat", 1.0), ("cat", 1.5), ("", 0.5), (" ", 0.5), ("\n", 0.5)])
def test_a_blank_gold_answer_is_an_empty_text(answer, expected):
    """The manual's example tests for an empty text; a text of blanks would make it divide by 0 words."""
    assert custom([completion("cat!? cat", of=row(answer, choices=()))], path=f"{MINE}:overlap") == [expected]


def test_a_function_gets_everything_about_a_completion():
    image = Media(path="images/1.png")
    of = row("B").model_copy(update={"media": (image, Media(kind="video", path="v.mp4")), "meta": {"id": 7}})
    given = completion("C", token_count=3, of=of, signals={"modality_dominance/all": 2.0})
    (value,) = custom([given], path=f"{MINE}:gets_everything", batch=True)
    assert value == 1.0


def test_nan_is_left_for_the_caller_to_refuse():
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
def test_an_invalid_function_is_named(name, batch, message):
    with pytest.raises(ValueError, match=message):
        scored(name, batch=batch)


def test_batch_requires_a_list():
    with pytest.raises(ValueError, match="got a float for a group; expected a list"):
        custom(GROUP, path=f"{MINE}:half", batch=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def reward(item:\n", r"bad\.py cannot be run: SyntaxError"),
        ("import there_is_no_such_module\n", r"cannot be run: ModuleNotFoundError: No module named"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_before_anything_starts(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        check_reward_options("custom", {"path": f"{tmp_path}/bad.py:reward"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mine.py", "got 'mine.py'; expected a Python file, a colon and a function"),
        ("mine.txt:reward", "expected a Python file"),
        ("mine.py:a b", "expected a Python file"),
        ("gone/mine.py:reward", r"no file /.*/gone/mine\.py"),
    ],
)
def test_an_invalid_path_is_named_before_anything_starts(path, message):
    with pytest.raises(ValueError, match=message):
        check_reward_options("custom", {"path": path})


def test_an_edited_file_is_read_again(tmp_path):
    file = tmp_path / "edited.py"
    for value in (1.0, 2.0):
        file.write_text(f"def reward(item):\n    return {value}\n")
        assert custom(GROUP, path=f"{file}:reward") == [value, value]

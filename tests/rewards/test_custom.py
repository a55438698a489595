import math
import sys
from pathlib import Path

import pytest

from rlassay.records import Media
from rlassay.rewards import REWARDS, check_reward_options
from rlassay.rewards.custom import custom_scored, source_files
from rlassay.rewards.outcomes import Failure, InvalidOutputError, Scored
from rlassay.rewards.sandbox.isolation import score_in_worker
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


# Results of NumPy and torch, metrics, options.


@pytest.mark.parametrize(
    "value",
    [
        "np.float32(0.5)",
        "np.float64(0.5)",
        "np.array(0.5)",
        "np.array([0.5])",
        "torch.tensor(0.5)",
        "torch.tensor([0.5], requires_grad=True)",
        "Fraction(1, 2)",
        "Decimal('0.5')",
        "(np.float16(0.5), {'n': np.int64(3)})",
        "{'overall': torch.tensor(0.5), 'n': 3}",
    ],
)
def test_a_number_of_any_library_is_a_number(tmp_path, value):
    head = "import numpy as np, torch\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
    (tmp_path / "kinds.py").write_text(f"{head}\ndef reward(item):\n    return {value}\n")
    assert custom(GROUP, path=f"{tmp_path}/kinds.py:reward") == [0.5, 0.5]


@pytest.mark.parametrize(
    "value", ["np.array([0.5, 1.0])", "torch.tensor([0.5, 1.0])", "[np.float32(0.5), np.bool_(1)]"]
)
def test_an_array_is_a_list_of_numbers(tmp_path, value):
    (tmp_path / "arrays.py").write_text(f"import numpy as np, torch\n\ndef reward(items):\n    return {value}\n")
    assert custom(GROUP, path=f"{tmp_path}/arrays.py:reward", batch=True) == [0.5, 1.0]


@pytest.mark.parametrize("value", ["np.array([0.5, 1.0])", "np.array('good')", "torch.zeros(2)", "(1.0, [2.0])"])
def test_an_array_or_a_text_is_no_number(tmp_path, value):
    (tmp_path / "wrong.py").write_text(f"import numpy as np, torch\n\ndef reward(item):\n    return {value}\n")
    with pytest.raises(InvalidOutputError, match="expected a "):
        custom(GROUP, path=f"{tmp_path}/wrong.py:reward")


def test_metrics_come_with_the_value():
    tiny = [completion("B", token_count=4)]
    assert custom_scored(tiny, path=f"{MINE}:with_metrics") == [Scored(value=1.0, metrics={"length": 4.0})]
    assert custom_scored(tiny, path=f"{MINE}:with_overall") == [Scored(value=0.4, metrics={"format": 1.0})]
    assert custom_scored(tiny, path=f"{MINE}:half") == [0.5]


def test_a_metric_that_is_no_finite_number_is_left_out(tmp_path):
    metrics = "{'good': True, 'nan': float('nan'), 'text': 'x', 'none': None, 'list': [1]}"
    (tmp_path / "noted.py").write_text(f"def reward(item):\n    return None, {metrics}\n")
    expected = Scored(value=None, metrics={"good": 1.0})
    assert custom_scored(GROUP, path=f"{tmp_path}/noted.py:reward") == [expected] * 2


def test_options_reach_the_function():
    group = [completion("big cat"), completion("dog")]
    options = {"scale": 2.0, "words": ("cat", "big")}
    assert custom(group, path=f"{MINE}:tuned", options=options) == [4.0, 0.0]


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("tuned", {"scle": 2.0}, r"^options: mine\.py:tuned\(.*got an unexpected keyword argument 'scle'"),
        ("half", {"scale": 2.0}, "got an unexpected keyword argument 'scale'"),
    ],
)
def test_an_option_that_the_function_does_not_take_is_named_before_anything_starts(function, options, message):
    with pytest.raises(ValueError, match=message):
        check_reward_options("custom", {"path": f"{MINE}:{function}", "options": options})


# Imports of a file, and the places of its mistakes.

POSTPONED = """
from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field

from helpers import WORTH
from parts.deep import double


@dataclass
class Verdict:
    value: float
    notes: list[str] = field(default_factory=list)


def reward(item):
    import lazily

    verdict = pickle.loads(pickle.dumps(copy.deepcopy(Verdict(WORTH))))
    assert isinstance(verdict, Verdict)
    return double(verdict.value) + lazily.MORE
"""


def own_files(folder: Path, worth: float) -> Path:
    """A reward file with a module, a package and a lazily imported module beside it: reward = 2 worth + 1."""
    (folder / "parts").mkdir(parents=True)
    (folder / "helpers.py").write_text(f"WORTH = {worth}\n")
    (folder / "parts/__init__.py").write_text("")
    (folder / "parts/deep.py").write_text("from . import twice\n\ndef double(value):\n    return twice.TWO * value\n")
    (folder / "parts/twice.py").write_text("TWO = 2\n")
    (folder / "lazily.py").write_text("MORE = 1\n")
    (folder / "mine.py").write_text(POSTPONED)
    return folder / "mine.py"


def test_a_file_may_have_dataclasses_pickle_them_and_import_its_neighbours(tmp_path):
    path, names = f"{own_files(tmp_path, 0.25)}:reward", set(sys.path)
    assert custom(GROUP, path=path) == [1.5, 1.5]
    assert score_in_worker(custom, {"path": path}, GROUP, per_sample=True, timeout=60.0) == [1.5, 1.5]
    assert set(sys.path) == names
    assert not {"helpers", "lazily", "parts", "mine"} & set(sys.modules)


def test_neighbours_of_the_same_name_in_two_folders_are_different_files(tmp_path):
    first, second = (own_files(tmp_path / name, worth) for name, worth in (("one", 1.0), ("two", 2.0)))
    for _ in range(2):
        assert custom(GROUP, path=f"{first}:reward") == [3.0, 3.0]
        assert custom(GROUP, path=f"{second}:reward") == [5.0, 5.0]


def test_an_edited_neighbour_is_read_again(tmp_path):
    file = own_files(tmp_path, 0.25)
    assert custom(GROUP, path=f"{file}:reward") == [1.5, 1.5]
    (tmp_path / "helpers.py").write_text("WORTH = 0.75\n")
    assert custom(GROUP, path=f"{file}:reward") == [2.5, 2.5]


def test_a_file_named_like_a_library_shadows_nothing(tmp_path):
    import json

    (tmp_path / "json.py").write_text("import json\n\ndef reward(item):\n    return len(json.dumps([1]))\n")
    assert custom(GROUP, path=f"{tmp_path}/json.py:reward") == [3, 3]
    assert sys.modules["json"] is json


def test_source_files_are_the_file_and_what_it_imports_beside_it(tmp_path):
    file = own_files(tmp_path, 0.25)
    (tmp_path / "unrelated.py").write_text("")
    expected = {"mine.py", "helpers.py", "lazily.py", "parts/__init__.py", "parts/deep.py", "parts/twice.py"}
    assert source_files(file).keys() == expected


@pytest.mark.parametrize(
    "statement",
    [
        "import importlib\nimportlib.import_module('helpers')",
        "from importlib import import_module as load, import_module\nimport_module('parts.deep')",
        "__import__('lazily')",
    ],
)
def test_a_module_imported_by_its_name_as_a_text_is_a_source_file(tmp_path, statement):
    own_files(tmp_path, 0.25)
    (tmp_path / "other.py").write_text(f"def reward(item):\n    return 1\n\n\n{statement}\n")
    found = source_files(tmp_path / "other.py").keys() - {"other.py"}
    last = statement.split("'")[-2]
    assert found == ({"parts/__init__.py", "parts/deep.py", "parts/twice.py"} if "parts" in last else {f"{last}.py"})


def test_a_module_under_a_computed_name_is_not_found(tmp_path):
    own_files(tmp_path, 0.25)
    (tmp_path / "other.py").write_text("import importlib\nNAME = 'help' + 'ers'\nimportlib.import_module(NAME)\n")
    assert source_files(tmp_path / "other.py").keys() == {"other.py"}


def test_an_exception_names_the_line_of_the_users_file(tmp_path):
    text = (
        "import json\n\ndef reward(item):\n    return helper(item)\n\ndef helper(item):\n    return json.loads('no')\n"
    )
    (tmp_path / "fails.py").write_text(text)
    path = f"{tmp_path}/fails.py:reward"
    where = f"(File \"{tmp_path}/fails.py\", line 7, in helper: return json.loads('no'))"
    for outcome in score_in_worker(custom, {"path": path}, GROUP, per_sample=True, timeout=60.0):
        assert isinstance(outcome, Failure)
        assert outcome.text == f"JSONDecodeError: Expecting value: line 1 column 1 (char 0) {where}"


def test_a_file_that_fails_at_import_names_its_line(tmp_path):
    (tmp_path / "bad.py").write_text("import there\n")
    (tmp_path / "there.py").write_text("A = 1\nB = A / 0\n")
    where = (
        rf'bad\.py cannot be run: ZeroDivisionError: .* \(File "{tmp_path}/there.py", line 2, in <module>: B = A / 0\)'
    )
    with pytest.raises(ValueError, match=where):
        check_reward_options("custom", {"path": f"{tmp_path}/bad.py:reward"})

"""Docstrings as a summarization set: which are taken, and that no document stands twice."""

import pytest

from rlassay.config import StudyError
from rlassay.config.data import Docstrings
from rlassay.data import load_rows
from rlassay.data.docstrings import drafts_of_module

PROSE = " ".join(f"word{number}" for number in range(25))
MODULE = f'''
def good():
    """
    Return what is asked for.

    {PROSE}

    Parameters
    ----------
    x : int
    """

def _private():
    """Return what is asked for.

    {PROSE}
    """

def short():
    """Return what is asked for.

    Too short.
    """

def no_sentence():
    """Return what is asked for

    {PROSE}
    """

class Good:
    """Hold what is asked for.

    Also {PROSE}
    """
'''


def test_a_documented_object_gives_its_prose_and_its_first_line():
    first, second = drafts_of_module(MODULE, "package.module", 22)
    assert first.answer == "Return what is asked for."
    assert first.question == " ".join(f"word{number}" for number in range(22))
    assert first.meta == {"object": "package.module.good"}
    assert second.question.startswith("Also word0")


def test_a_package_gives_disjoint_splits_twice_the_same(tmp_path, monkeypatch):
    package = tmp_path / "documented"
    (package / "tests").mkdir(parents=True)
    functions = [f'def f{n}():\n    """Do the thing {n}.\n\n    {PROSE} {n}\n    """\n' for n in range(60)]
    (package / "__init__.py").write_text("".join(functions))
    (package / "copy.py").write_text("".join(functions))
    (package / "tests" / "test_it.py").write_text("this is no Python")
    monkeypatch.syspath_prepend(str(tmp_path))
    section = Docstrings(kind="docstrings", packages=("documented",), splits={"sft": 5, "train": 9, "test": 4})
    rows = list(load_rows(section, tmp_path / "out"))
    assert len({row.question for row in rows}) == len(rows) == 18
    assert rows[9:] == list(load_rows(section, tmp_path / "other", "train"))
    assert {row.question.split()[-1] for row in rows} <= {str(n) for n in range(60)}
    with pytest.raises(StudyError, match=r"data.splits.test: asks for 60 rows, but only \d+ are usable"):
        list(load_rows(section.model_copy(update={"splits": {"test": 60}}), tmp_path / "out"))


def test_a_package_that_is_not_installed_is_named(tmp_path):
    section = Docstrings(kind="docstrings", packages=("no_such_package",))
    with pytest.raises(StudyError, match=r"data.packages: 'no_such_package' is no installed package"):
        list(load_rows(section, tmp_path))

"""Docstrings as a summarization set: which ones are usable, and that no document repeats."""

import shutil

import pytest

from rlassay.config import StudyError, load_study
from rlassay.config.data import Docstrings
from rlassay.config.fingerprints import data_id
from rlassay.data import docstrings, load_rows

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

    async def method(self):
        """Return what was held.

        Then {PROSE}
        """
        def inner():
            """Return nobody's business at all.

            {PROSE}
            """

class _Hidden:
    def method(self):
        """Return what was held.

        {PROSE}
        """
'''


def test_a_documented_object_gives_its_prose_and_its_first_line():
    first, second, third = docstrings.examples_of_module(MODULE, "package.module", 22)
    assert first.answer == "Return what is asked for."
    assert first.question == " ".join(f"word{number}" for number in range(22))
    assert first.meta == {"object": "package.module.good"}
    assert second.question.startswith("Also word0")
    assert third.question.startswith("Then word0")


def test_a_headline_is_the_first_content_words_of_a_sentence():
    plain = "The sorted array is returned, and all of its old values are lost for ever."
    second = "A copy of the given matrix has been made by this method."
    text = f"One two. {plain} Return `x` of it at once now.\n\n    {second}"
    section = "Parameters\n    ----------\n    x : The sorted array is here for all to see."
    module = f'def good():\n    """{text}\n\n    {section}\n    """\n'
    first, other = docstrings.headlines_of_module(module, "package.module")
    assert first.question == plain
    assert first.answer == "sorted array returned old values"
    assert other.answer == "copy given matrix made method"
    prefixes = {"The sorted array is returned", "The sorted", first.answer}
    assert first.demonstration in prefixes


def test_demonstrations_of_headlines_are_of_mixed_quality():
    sentences = [f"The array number {n} is copied into another big buffer." for n in range(400)]
    module = "".join(f'def f{n}():\n    """{each}"""\n' for n, each in enumerate(sentences))
    kinds = {"headline": 0, "words": 0, "two": 0}
    for example in docstrings.headlines_of_module(module, "m"):
        words = len(str(example.demonstration).split())
        kinds["headline" if example.demonstration == example.answer else "words" if words == 5 else "two"] += 1
    # 400 draws: standard deviations of about 10 around 160, 120 and 120
    assert kinds["headline"] == pytest.approx(160, abs=35)
    assert kinds["words"] == pytest.approx(120, abs=35)


def test_a_package_gives_the_same_disjoint_splits_each_time(tmp_path, monkeypatch):
    package = install(tmp_path)
    functions = [f'def f{n}():\n    """Do the thing {n}.\n\n    {PROSE} {n}\n    """\n' for n in range(60)]
    (package / "__init__.py").write_text("".join(functions))
    (package / "copy.py").write_text("".join(functions))
    (package / "tests" / "test_it.py").write_text("this is no Python")
    monkeypatch.syspath_prepend(str(tmp_path))
    section = Docstrings(kind="docstrings", packages=("documented",), splits={"sft": 5, "train": 9, "test": 4})
    rows = list(load_rows(section, tmp_path / "out"))
    assert len({row.question for row in rows}) == len(rows) == 18
    assert rows[9:] == list(load_rows(section, tmp_path / "other", "train"))[-9:]
    assert {row.question.split()[-1] for row in rows} <= {str(n) for n in range(60)}
    with pytest.raises(StudyError, match=r"data.splits.test: asks for 60 rows, but only \d+ are usable"):
        list(load_rows(section.model_copy(update={"splits": {"test": 60}}), tmp_path / "out"))


def test_files_are_read_until_there_are_enough_rows(tmp_path, monkeypatch):
    package = install(tmp_path)
    for module in range(40):
        function = f'def f{module}():\n    """Do the thing {module}.\n\n    {PROSE} {module}\n    """\n'
        (package / f"m{module}.py").write_text(function)
    monkeypatch.syspath_prepend(str(tmp_path))
    read: list[str] = []
    of_module = docstrings.examples_of_module

    def counting(source, module, max_words):
        read.append(module)
        return of_module(source, module, max_words)

    monkeypatch.setattr(docstrings, "examples_of_module", counting)
    section = Docstrings(kind="docstrings", packages=("documented",), splits={"train": 3})
    list(load_rows(section, tmp_path / "out"))
    assert 3 <= len(read) == len(set(read)) < 20


def test_another_version_changes_the_data_id(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    section = Docstrings(kind="docstrings", packages=("documented",))
    study = load_study("digits", "tiny").model_copy(update={"data": section})
    ids = []
    for version in ("1.0", "1.0", "1.1"):
        install(tmp_path, version)
        ids.append(data_id(study))
    assert ids[0] == ids[1] != ids[2]
    shutil.rmtree(tmp_path / "documented-1.1.dist-info")
    with pytest.raises(StudyError, match="'documented' is not an installed package with a version"):
        list(load_rows(section, tmp_path / "out"))


def install(folder, version="1.0"):
    """The folder of a package with version metadata; it replaces another version."""
    for older in folder.glob("documented-*"):
        shutil.rmtree(older)
    (folder / f"documented-{version}.dist-info").mkdir()
    about = f"Metadata-Version: 2.1\nName: documented\nVersion: {version}\n"
    (folder / f"documented-{version}.dist-info" / "METADATA").write_text(about)
    (folder / "documented" / "tests").mkdir(parents=True, exist_ok=True)
    (folder / "documented" / "__init__.py").touch()
    return folder / "documented"


def test_a_package_that_is_not_installed_is_an_error(tmp_path):
    section = Docstrings(kind="docstrings", packages=("no_such_package",))
    with pytest.raises(
        StudyError, match=r"data.packages: 'no_such_package' is not an installed package with a version"
    ):
        list(load_rows(section, tmp_path))

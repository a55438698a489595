"""A study that extends another: its differences laid over it, chains, circles."""

from pathlib import Path

import pytest

from rlassay.config import StudyError, load_study
from rlassay.config.fingerprints import rl_id
from tests.config.studies import content, write


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "config/studies/digits.yaml", content())
    monkeypatch.chdir(tmp_path)


def extend(name: str, above: str, **keys: object) -> str:
    """The name of a written study that extends another."""
    write(Path(f"config/studies/{name}.yaml"), {"name": name, "extends": above, **keys})
    return name


def test_only_the_differences_change_in_a_chain_of_two():
    extend("longer", "digits", rl={"max_steps": 80}, arms={"format_only": None, "dr_grpo": {"label": "other"}})
    extend("last", "longer", rl={"beta": 0.5}, seeds=[7])
    digits, last = load_study("digits"), load_study("last")
    recipe = last.arms["base"].recipe
    assert (recipe.rl.max_steps, recipe.rl.beta, recipe.rl.save_steps) == (80, 0.5, 20)
    assert (last.name, last.seeds, last.title) == ("last", (7,), digits.title)
    assert {name: arm.label for name, arm in last.arms.items()} == {
        "base": "accuracy + format",
        "accuracy_only": "accuracy only",
        "dr_grpo": "other",
    }


def test_an_unchanged_arm_keeps_its_fingerprint_and_a_scale_applies():
    name = extend("more", "digits", seeds=[1, 2, 3, 4])
    assert rl_id(load_study(name), "dr_grpo", 2) == rl_id(load_study("digits"), "dr_grpo", 2)
    write(Path("config/scales/small.yaml"), {"rl": {"max_steps": 2}})
    assert load_study(name, "small").arms["base"].recipe.rl.max_steps == 2


def test_a_study_may_extend_a_path_and_become_a_design():
    write(Path("elsewhere.yaml"), content(rewards__think_answer_format__weight=0.0))
    arms = dict.fromkeys(("base", "accuracy_only", "format_only", "dr_grpo"))
    ingredients = {"kl": {"rl": {"beta": 0.1}}}
    extend("made", "elsewhere.yaml", design="add_one_in", ingredients=ingredients, arms=arms, baseline="none")
    assert list(load_study("made").arms) == ["none", "kl"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "a"}, r"extends: runs in a circle: a extends a"),
        ({"a": "b", "b": "c", "c": "b"}, r"extends: runs in a circle: b extends c extends b"),
        ({"a": "digts"}, r"digts.yaml: no such file; expected the path of a file, or one of a, digits; did you mean"),
        ({"a": ["digits"]}, r"extends: got a list, expected text"),
    ],
)
def test_circles_and_unknown_studies_are_refused(files: dict, message: str):
    for name, above in files.items():
        extend(name, above)
    with pytest.raises(StudyError, match=message):
        load_study("a")


def test_it_needs_a_name_of_its_own_and_problems_name_the_key():
    write(Path("config/studies/a.yaml"), {"extends": "digits"})
    with pytest.raises(StudyError, match="name: missing; expected a name of its own"):
        load_study("a")
    extend("b", "digits", rl={"max_step": 3})
    with pytest.raises(StudyError, match=r"config/studies/b.yaml: 1 problem\n  - rl.max_step: unknown key"):
        load_study("b")

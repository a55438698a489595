"""A new key of the recipe is written in `Recipe` alone: study files, arms, scales, the schema and MLflow follow."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlassay.config.fingerprints import PACKAGE
from rlassay.config.section import Section
from rlassay.config.study import ArmFile, DesignKeys, Overlay, StudyFile, StudyKeys
from rlassay.config.training import Recipe
from tests.config.studies import content, write

TOY = '''
class Toy(Section):
    """A section that no stage reads."""

    size: int = Field(default=1, ge=1)
    """A number."""
    name: str = "a"
    """A text."""


class Recipe(Section):
    """With two keys more."""

    toy: Toy = Toy()
    """A section."""
    toy_factor: float = Field(default=1.0, ge=0)
    """A plain value."""
'''
SCRIPT = """
import json, sys
from pathlib import Path
from rlassay.config import StudyError, load_study
from rlassay.config.arms import differences
from rlassay.config.fingerprints import rl_id
from rlassay.config.policies import policies
from rlassay.config.schema import study_schema
from rlassay.tracking.runs import run_params

written, wrong, scale = sys.argv[1:]
study, small = load_study(written), load_study(written, scale)
try:
    load_study(wrong)
except StudyError as error:
    problems = error.problems
schema, big = json.loads(study_schema()), policies(study)["runs/big/seed1"]
print(json.dumps({
    "toys": [arm.recipe.toy.model_dump() for arm in study.arms.values()],
    "factors": [arm.recipe.toy_factor for arm in study.arms.values()],
    "scaled": [arm.recipe.toy.model_dump() for arm in small.arms.values()],
    "problems": problems,
    "differences": [[each.path for each in found] for found in differences(study).values()],
    "fingerprints": [rl_id(study, arm, 1) for arm in study.arms],
    "params": {key: value for key, value in run_params(study, big).items() if "toy" in key},
    "schema": list(schema["$defs"]["ArmFile"]["properties"]["toy"]["anyOf"][0]["properties"]),
}))
"""


def test_arms_have_the_keys_of_the_recipe_and_scales_those_that_hold_keys():
    own = ["algorithm", "from_", "label", "color", "varies"]
    assert list(ArmFile.model_fields) == [*own, *Recipe.model_fields]
    assert set(StudyFile.model_fields) == {
        *StudyKeys.model_fields,
        *DesignKeys.model_fields,
        *Recipe.model_fields,
        *("algorithm", "extends", "seeds", "family", "arms"),
    }
    plain = {"credit", "credit_denominator", "entropy_penalty_coef"}
    assert set(Overlay.model_fields) == {*Recipe.model_fields, "data", "evaluation", "primary"} - plain


def test_an_arm_may_leave_out_every_key():
    arm = ArmFile()
    assert all(getattr(arm, key) is None for key in Recipe.model_fields)
    assert isinstance(arm, Section)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the sources whose `Recipe` has a toy section and a toy value."""
    folder = shutil.copytree(PACKAGE, tmp_path / "src/rlassay", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "config/training.py"
    text = file.read_text()
    start = text.index("class Recipe(Section):")
    body = text[text.index("\n    model: ", start) :]
    file.write_text(text[:start] + TOY.lstrip("\n") + body)
    return folder


def test_a_new_key_of_the_recipe_works_everywhere(package: Path, tmp_path: Path):
    arms = {"base": {}, "big": {"toy": {"size": 3}, "toy_factor": 0.5, "varies": ["toy.size", "toy_factor"]}}
    written = write(tmp_path / "written.yaml", content(toy={"name": "b"}, arms=arms))
    wrong = write(tmp_path / "wrong.yaml", content(toy_factor=-1.0, arms={"base": {"toy": {"sise": 3}}}))
    scale = write(tmp_path / "small.yaml", {"toy": {"name": "c"}})
    command = [sys.executable, "-c", SCRIPT, str(written), str(wrong), str(scale)]
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["toys"] == [{"size": 1, "name": "b"}, {"size": 3, "name": "b"}]
    assert found["factors"] == [1.0, 0.5]
    assert found["scaled"] == [{"size": 1, "name": "c"}, {"size": 3, "name": "c"}]
    assert found["problems"] == [
        "toy_factor: got the number -1.0, expected a number of at least 0",
        "arms.base.toy.sise: unknown key; expected one of size, name; did you mean 'size'?",
    ]
    assert found["differences"] == [[], ["toy.size", "toy_factor"]]
    assert len(set(found["fingerprints"])) == 2
    assert found["params"] == {"toy.size": "3", "toy.name": "b", "toy_factor": "0.5"}
    assert found["schema"] == ["size", "name"]

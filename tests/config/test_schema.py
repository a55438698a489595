"""The schema that editors use is the one that the config tree gives, and it judges study files as the tree does."""

import json

import jsonschema
import pytest

from rlassay.config.schema import SCHEMA, study_schema
from tests.config.studies import GONE, content

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_the_committed_schema_is_up_to_date():
    assert SCHEMA.read_text(encoding="utf-8") == study_schema(), "run: python -m rlassay.config.schema"


def test_the_schema_accepts_the_built_in_study_and_every_form_of_an_arm():
    VALIDATOR.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(content())
    arm = {"model": {"layers": 2}, "sft": None, "rl": {"beta": 0.1}, "rewards": {"soft_overlong": None}}
    VALIDATOR.validate(content(arms__other=arm))
    VALIDATOR.validate(content(arms__other={"model": {"lora": {"r": 4}}}))


def test_the_schema_accepts_a_design_and_a_study_that_extends_another():
    ingredients = {"kl": {"label": "KL", "rl": {"beta": 0.1}, "rewards": {"soft_overlong": None}}}
    VALIDATOR.validate(content(arms=GONE, design="factorial", ingredients=ingredients))
    VALIDATOR.validate({"name": "longer", "extends": "digits", "seeds": [1]})
    assert not VALIDATOR.is_valid({"name": "longer", "seeds": [1]})


@pytest.mark.parametrize(
    "edits",
    [
        {"sedes": [1]},
        {"seeds": ["1"]},
        {"title": GONE},
        {"model": {"kind": "tinyvlm"}},
        {"rl__max_step": 1},
        {"rewards__choise_accuracy": {"weight": 1.0}},
        {"arms__base__rl": {"max_step": 1}},
        {"arms__base__rewards": {"choise_accuracy": None}},
        {"arms__base__labl": "x"},
        {"arms": GONE, "design": "factorial", "ingredients": {"kl": {"rl": {"bta": 0.1}}}},
        {"design": "factorail"},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_tree_refuses(edits: dict):
    assert not VALIDATOR.is_valid(content(**edits))

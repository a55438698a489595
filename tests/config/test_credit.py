"""The sections of token credit and the functions that they select are one and the same list."""

import inspect
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from rlassay.config.credit import CreditConfig, SignalsConfig
from rlassay.config.fingerprints import rl_id, sft_id
from rlassay.credit import CREDITS
from tests.config.studies import study

SECTIONS = {get_args(part.model_fields["kind"].annotation)[0]: part for part in get_args(get_args(CreditConfig)[0])}


def read(**part: Any) -> Any:
    return TypeAdapter(CreditConfig).validate_python(part)


def test_every_part_has_a_section_under_its_name():
    assert list(SECTIONS) == list(CREDITS)


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_section_has_the_options_and_defaults_of_its_part(kind: str):
    parameters = list(inspect.signature(CREDITS[kind]).parameters.values())[1:]
    section = read(kind=kind)
    assert list(type(section).model_fields) == ["kind", *(each.name for each in parameters)]
    assert [getattr(section, each.name) for each in parameters] == [each.default for each in parameters]


@pytest.mark.parametrize(
    "part",
    [
        {"kind": "entropy_filter", "fraction": 0.0},
        {"kind": "perception_filter", "fraction": 1.1},
        {"kind": "random_filter", "fraction": -0.2},
        {"kind": "entropy_filter", "scope": "group"},
        {"kind": "entropy_filter", "choice": "largest"},
        {"kind": "covariance_penalty", "coef": -1.0},
        {"kind": "trajectory_scaling", "min_scale": 1.1},
        {"kind": "trajectory_scaling", "max_scale": 0.9},
        {"kind": "attention_weights", "clip": (1.1, 3.0)},
        {"kind": "attention_weights", "clip": (0.2, 0.9)},
        {"kind": "attention_weights", "sigma": -1.0},
        {"kind": "attention_weights", "quantile_cap": 0.0},
        {"kind": "uniform", "fraction": 0.2},
    ],
)
def test_options_out_of_range_are_refused(part: dict):
    with pytest.raises(ValidationError):
        read(**part)


def test_the_layers_that_dominance_comes_from_are_a_segment_or_the_last_ones():
    assert SignalsConfig().attention.dominance == "late"
    assert SignalsConfig.model_validate({"attention": {"dominance": 6}}).attention.dominance == 6


@pytest.mark.parametrize(
    "edits",
    [
        {"credit": [{"kind": "entropy_filter"}]},
        {"credit": [{"kind": "entropy_filter", "choice": "lowest"}]},
        {"credit_denominator": "selected", "arms": {"base": {}}},
        {"entropy_penalty_coef": 0.06},
        {"signals": {"perception": {"block": 4}}},
    ],
    ids=str,
)
def test_what_credit_is_and_how_it_is_measured_identify_the_weights_alone(edits: dict):
    before, after = study(), study(**edits)
    assert rl_id(after, "base", 1) != rl_id(before, "base", 1)
    recipes = before.arms["base"].recipe, after.arms["base"].recipe
    assert sft_id(before, recipes[0]) == sft_id(after, recipes[1])


def test_the_default_choice_of_tokens_leaves_fingerprints_as_they_were():
    written, default = (study(credit=[{"kind": "entropy_filter", **choice}]) for choice in ({"choice": "highest"}, {}))
    assert rl_id(written, "base", 1) == rl_id(default, "base", 1)
    assert "choice" not in default.arms["base"].recipe.credit[0].model_dump()

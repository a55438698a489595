"""Scales by hand: what they reach, what they leave alone, and what depends on the study's data."""

from pathlib import Path

import pytest

from rlassay.config import Study, StudyError, load_study
from rlassay.config.load import scale_study
from rlassay.config.scale import fit_scale, lay_scale, unknown_sources
from rlassay.config.yaml_file import read_yaml
from tests.config.studies import GONE, content, write

TINY = Path("config/scales/tiny.yaml")
HUB = {"kind": "hub", "name": "openai/gsm8k", "revision": "main", "config": "main"}
SOURCES = {
    "gsm8k": {"kind": "gsm8k", "origin": HUB, "splits": {"train": None, "test": None, "more": None}},
    "aokvqa": {"kind": "aokvqa", "origin": HUB, "question_ids": "ids.txt"},
    "table": {"kind": "table", "origin": {"kind": "parquet"}, "preset": "image_problem_solution"},
    "summarization": {"kind": "summarization", "origin": {"kind": "json"}},
    "docstrings": {"kind": "docstrings", "max_words": 50},
    "jsonl_prompts": {"kind": "jsonl_prompts", "folder": "/nowhere"},
    "conversations": {"kind": "conversations", "folder": "/nowhere"},
    "jsonl": {"kind": "jsonl", "folder": "/nowhere"},
}
TINY_SOURCES = {
    "gsm8k": ("gsm8k", "tiny_lm"),
    "aokvqa": ("aokvqa", "tiny_vlm"),
    "summarization": ("docstrings", "tiny_lm"),
    "docstrings": ("docstrings", "tiny_lm"),
}


def tiny(**edits: object) -> Study:
    """The built-in study with edits, made tiny."""
    return scale_study(content(**edits), TINY)


@pytest.mark.parametrize(("sft", "merged"), [({"x": 1, "y": 2}, {"x": 1, "y": 9}), (None, None)])
def test_a_scale_reaches_a_warm_start_only_where_there_is_one(sft: object, merged: object):
    assert lay_scale({"sft": sft, "rl": {"z": 1}}, {"sft": {"y": 9}, "rl": {"z": 3}}) == {"sft": merged, "rl": {"z": 3}}
    assert lay_scale({"rl": {"z": 1}}, {"sft": {"y": 9}}) == {"rl": {"z": 1}}


def test_a_scale_reaches_a_reward_only_where_there_is_one():
    sections = {"rewards": {"a": {"weight": 2, "options": {"x": 1, "y": 2}}}}
    over = {"rewards": {"a": {"options": {"y": 9}}, "b": {"options": {"y": 9}}}}
    assert lay_scale(sections, over) == {"rewards": {"a": {"weight": 2, "options": {"x": 1, "y": 9}}}}


def test_splits_are_replaced_and_not_merged():
    sections = {"data": {"seed": 7, "splits": {"train": 500, "more": None}}}
    over = {"data": {"splits": {"train": 5}}}
    assert lay_scale(sections, over) == {"data": {"seed": 7, "splits": {"train": 5}}}
    assert sections["data"]["splits"] == {"train": 500, "more": None}


SCALE = {
    "seeds": [1],
    "data": {"kind": "digits", "seed": 3},
    "sft": {"max_steps": 2},
    "rl": {"max_steps": 4, "beta": 0.1},
    "by_source": {"gsm8k": {"data": {"splits": {"train": 9}}, "rl": {"max_steps": 6}}},
}


@pytest.mark.parametrize(
    ("kind", "data", "max_steps"), [("gsm8k", {"splits": {"train": 9}}, 6), ("table", {"kind": "digits", "seed": 3}, 4)]
)
def test_the_part_for_a_source_is_laid_over_the_rest_and_replaces_its_data(kind: str, data: dict, max_steps: int):
    _, overlay = fit_scale({"data": {"kind": kind}, "arms": {}}, SCALE)
    assert overlay == {"seeds": [1], "data": data, "sft": {"max_steps": 2}, "rl": {"max_steps": max_steps, "beta": 0.1}}


@pytest.mark.parametrize(
    ("adds", "written", "added"),
    [
        (True, {"arms": {"a": {}, "b": {"rl": {}}}}, True),
        (False, {"arms": {"a": {}}}, False),
        (True, {"arms": {"a": {}}, "sft": {"max_steps": 9}}, False),
        # An arm tests the warm start: the others go without one at every scale.
        (True, {"arms": {"a": {}, "b": {"sft": {"max_steps": 9}}}}, False),
    ],
)
def test_a_warm_start_is_added_where_the_whole_study_has_none(adds: bool, written: dict, added: bool):
    written = {"data": {"kind": "table"}, **written}
    fitted, _ = fit_scale(written, {**SCALE, "adds_warm_start": adds})
    assert fitted == ({**written, "sft": {"max_steps": 2}} if added else written)


def test_a_source_that_no_study_can_have_is_named(tmp_path: Path):
    assert unknown_sources(SCALE) == []
    path = write(tmp_path / "odd.yaml", {"by_source": {"gsm8": {"rl": {"max_steps": 1}}}})
    with pytest.raises(StudyError, match=r"by_source.gsm8: unknown kind of data; .* did you mean 'gsm8k'\?"):
        load_study("digits", path)


@pytest.mark.parametrize("source", SOURCES)
def test_tiny_needs_no_download_whatever_the_source(source: str):
    small = tiny(data=SOURCES[source], sft=GONE)
    kind, model = TINY_SOURCES.get(source, ("digits", "tiny_vlm"))
    assert small.data.kind == kind
    assert small.data.splits == {"sft": 256, "train": 64, "test": 24}
    assert getattr(getattr(small.data, "origin", None), "kind", "builtin") == "builtin"
    assert getattr(small.data, "question_ids", None) is None
    for arm in small.arms.values():
        assert (arm.recipe.model.kind, arm.recipe.sft is not None) == (model, True)


def test_tiny_shortens_what_a_length_reward_pays_for():
    longer = {"weight": 1.0, "options": {"max_completion_length": 384, "cache": 50}}
    small = tiny(
        rewards__soft_overlong=longer,
        rewards__accuracy_conditioned_length={**longer, "options": {"max_completion_length": 384}},
    )
    rl = small.arms["base"].recipe.rl
    options = small.rewards["soft_overlong"].options
    assert options["max_completion_length"] == rl.max_completion_length == small.evaluation.max_completion_length
    assert options["cache"] < options["max_completion_length"]
    assert small.rewards["accuracy_conditioned_length"].options == {"max_completion_length": rl.max_completion_length}


def test_every_part_of_tiny_for_a_source_is_tested_here():
    assert set(read_yaml(TINY)["by_source"]) == set(TINY_SOURCES)

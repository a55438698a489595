"""Presets of algorithms: their values, what they win and lose against, their errors, and their table in GLOSSARY.md."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlassay.config import StudyError, load_study
from rlassay.config.fingerprints import rl_id
from rlassay.config.load import read_yaml, resolve_study
from tests.config.studies import content, problems, study, write

PRESETS = {path.stem: read_yaml(path) for path in sorted(Path("config/algorithms").glob("*.yaml"))}
KNOWN = "dapo, dr_grpo, grpo, gspo, ppo, remax, rloo, vppo"
# What sets each paper's algorithm apart: estimator, loss, level of the ratio, lower and upper clip range.
PUBLISHED = {
    "grpo": ("grpo", "grpo", "token", 0.2, None),
    "dr_grpo": ("grpo", "dr_grpo", "token", 0.2, None),
    "dapo": ("grpo", "dapo", "token", 0.2, 0.28),
    "gspo": ("grpo", "grpo", "sequence", 0.0003, 0.0004),
    "vppo": ("grpo", "dapo", "token", 0.2, 0.28),
    "ppo": ("gae", "dapo", "token", 0.2, None),
    "rloo": ("rloo", "dr_grpo", "token", 0.2, None),
    "remax": ("remax", "dr_grpo", "token", 0.2, None),
}


def one_arm(**keys: Any) -> dict[str, dict[str, Any]]:
    """The arms of a study with one arm."""
    return {"base": keys}


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_arm_gets_every_value_of_a_preset(name: str):
    recipe = study(arms=one_arm(algorithm=name)).arms["base"].recipe
    rl = recipe.rl
    found = (rl.advantage.kind, rl.loss_type, rl.importance_sampling_level, rl.epsilon, rl.epsilon_high)
    assert found == PUBLISHED[name]
    for key, value in PRESETS[name]["rl"].items():
        given = getattr(rl, key)
        if isinstance(value, dict):
            assert {option: getattr(given, option) for option in value} == value
        else:
            assert given == value


def test_every_preset_leaves_no_key_of_the_loss_to_the_study():
    assert set(PRESETS) == set(PUBLISHED)
    keys = {"advantage", "loss_type", "importance_sampling_level", "epsilon", "epsilon_high", "delta"}
    for name, preset in PRESETS.items():
        assert keys | {"mask_truncated_completions", "dynamic_sampling"} <= set(preset["rl"]), name
        assert ("scale_rewards" in preset["rl"]) == (preset["rl"]["advantage"]["kind"] == "grpo"), name


def test_vppo_brings_its_credit_and_entropy_penalty():
    recipe = study(arms=one_arm(algorithm="vppo")).arms["base"].recipe
    assert [part.kind for part in recipe.credit] == ["perception_filter", "trajectory_scaling"]
    assert (recipe.rl.delta, recipe.entropy_penalty_coef) == (3.0, 0.06)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_written_out_by_hand_has_the_same_fingerprint(name: str):
    preset = study(arms=one_arm(algorithm=name))
    written = study(arms=one_arm(**PRESETS[name]))
    assert rl_id(preset, "base", 1) == rl_id(written, "base", 1)
    assert preset == written


def test_an_arms_preset_loses_to_its_own_keys_and_wins_over_those_that_it_inherits():
    arms = {
        "base": {"algorithm": "dr_grpo"},
        "other": {
            "from": "base",
            "varies": ["rl", "entropy_penalty_coef"],
            "algorithm": "vppo",
            "rl": {"epsilon_high": 0.3},
            "credit": [{"kind": "uniform"}],
        },
    }
    resolved = study(arms=arms, rl__epsilon=0.5, rl__beta=0.1)
    base, other = (resolved.arms[name].recipe for name in ("base", "other"))
    assert (base.rl.loss_type, base.rl.scale_rewards, base.rl.epsilon, base.rl.beta) == ("dr_grpo", "none", 0.2, 0.0)
    assert (other.rl.loss_type, other.rl.scale_rewards, other.rl.epsilon_high) == ("dapo", "group", 0.3)
    assert [part.kind for part in other.credit] == ["uniform"]


def test_a_studys_preset_loses_to_its_sections():
    recipe = study(algorithm="gspo", rl__epsilon=0.5, arms=one_arm()).arms["base"].recipe
    assert (recipe.rl.epsilon, recipe.rl.epsilon_high) == (0.5, 0.0004)


def test_a_preset_of_an_extending_study_wins_over_what_it_extends(tmp_path: Path):
    above = write(tmp_path / "above.yaml", content(rl__epsilon=0.5, rl__loss_type="dapo", arms=one_arm()))
    below = write(tmp_path / "below.yaml", {"name": "below", "extends": str(above), "algorithm": "grpo"})
    recipe = load_study(below).arms["base"].recipe
    assert (recipe.rl.epsilon, recipe.rl.loss_type) == (0.2, "grpo")


def test_an_ingredient_may_be_a_preset():
    made = study(
        design="add_one_in",
        ingredients={"even": {"algorithm": "dr_grpo"}},
        arms={},
        baseline="none",
        rl__loss_type="grpo",
    )
    assert made.arms["even"].recipe.rl.loss_type == "dr_grpo"
    assert set(made.arms["even"].varies) == {"rl.loss_type", "rl.scale_rewards"}


def test_what_a_preset_changes_must_be_declared():
    arms = {"base": {"algorithm": "grpo"}, "other": {"algorithm": "dr_grpo", "varies": ["rl.loss_type"]}}
    (problem,) = problems(arms=arms)
    assert problem.startswith(
        "arms.other: rl.scale_rewards is 'none' here and 'group' in the baseline 'base', a confound"
    )


def test_an_unknown_preset_is_named_where_it_is_written():
    arms = {"base": {"algorithm": "dapoo"}}
    expected = f"expected one of {KNOWN}"
    assert problems(algorithm="dr_gpro", arms=arms) == [
        f"algorithm: got the text 'dr_gpro', {expected}; did you mean 'dr_grpo'?",
        f"arms.base.algorithm: got the text 'dapoo', {expected}; did you mean 'dapo'?",
    ]
    assert problems(algorithm=3) == ["algorithm: got the number 3, expected text; write algorithm: '3'"]


def test_a_preset_of_ones_own_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(Path("config/algorithms/mine.yaml"), {"rl": {"epsilon": 0.1}})
    write(Path("config/algorithms/wrong.yaml"), {"lr": {"epsilon": 0.1}})
    assert study(arms=one_arm(algorithm="mine")).arms["base"].recipe.rl.epsilon == 0.1
    with pytest.raises(
        StudyError, match=r"config/algorithms/wrong.yaml: 1 problem\n  - lr: unknown key; expected one of"
    ):
        study(arms=one_arm(algorithm="wrong"))


def test_the_committed_study_is_the_one_whose_presets_are_written_out_by_hand():
    presets, written = load_study("estimators"), read_yaml(Path("config/studies/estimators.yaml"))
    del written["algorithm"]
    written["rl"]["loss_type"] = "grpo"
    written["arms"]["dr_grpo"] |= {"algorithm": None, "rl": {"loss_type": "dr_grpo", "scale_rewards": "none"}}
    written["arms"]["dapo"] |= {"algorithm": None, "rl": {"loss_type": "dapo", "epsilon_high": 0.28}}
    sequence = {"importance_sampling_level": "sequence", "epsilon": 0.0003, "epsilon_high": 0.0004}
    written["arms"]["gspo"] |= {"algorithm": None, "rl": sequence}
    by_hand = resolve_study(written)
    assert by_hand == presets
    assert {name: rl_id(by_hand, name, 2) for name in by_hand.arms} == {
        name: rl_id(presets, name, 2) for name in presets.arms
    }


def test_the_glossary_lists_every_value_of_every_preset():
    section = Path("GLOSSARY.md").read_text(encoding="utf-8").split("\n## Presets of algorithms\n")[1].split("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    header, _, *rows = lines
    assert [row[0] for row in rows] == [f"`{name}`" for name in PUBLISHED]
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        name = cells.pop("preset").strip("`")
        comment = Path(f"config/algorithms/{name}.yaml").read_text(encoding="utf-8").split("\nrl:")[0]
        assert re.findall(r"arXiv (\S+?),? ", cells["source"] + " ") == re.findall(r"arXiv (\d+\.\d+)", comment)
        del cells["source"]
        preset = {**PRESETS[name]["rl"], **{key: value for key, value in PRESETS[name].items() if key != "rl"}}
        others = {key: _text(value) for key, value in preset.items() if f"`{key}`" not in cells}
        assert cells.pop("others") == (", ".join(f"`{key}: {value}`" for key, value in others.items()) or "-")
        assert {key.strip("`"): cell for key, cell in cells.items()} == {
            key.strip("`"): _text(preset[key.strip("`")]) if key.strip("`") in preset else "-" for key in cells
        }


def _text(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).removesuffix("...\n").strip()

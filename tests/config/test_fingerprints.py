"""Fingerprints change with what decides a result, and with nothing else; code digests change with statements alone."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.config import Study
from rlassay.config.fingerprints import (
    PACKAGE,
    code_digest,
    data_id,
    evaluation_id,
    model_id,
    model_policy,
    recipe_id,
    rl_id,
    sft_id,
    sft_policy,
)
from tests.config.studies import GONE, study

BEFORE = study()


def ids(study: Study, arm: str = "base", seed: int = 1) -> dict[str, str]:
    """All fingerprints of one run, by name."""
    recipe = study.arms[arm].recipe
    return {
        "data": data_id(study),
        "model": model_id(study, recipe),
        "sft": sft_id(study, recipe),
        "rl": rl_id(study, arm, seed),
        "evaluation": evaluation_id(study, recipe),
    }


EVERY = {"data", "model", "sft", "rl", "evaluation"}
EDITS = [
    # What decides no result.
    ({"title": "x", "question": "y", "gpus": 1, "family": ["dr_grpo"]}, set()),
    ({"arms__base__label": "x", "arms__base__color": "#123456"}, set()),
    ({"primary__metric": "parse_failure"}, set()),
    ({"seeds": [1, 7]}, set()),
    ({"arms__new": {"rl": {"beta": 0.1}, "varies": ["rl"]}}, set()),
    ({"arms__dr_grpo__rl__beta": 0.1, "arms__dr_grpo__varies": ["rl"]}, set()),
    ({"rewards__choice_accuracy__timeout": 2.0, "rewards__choice_accuracy__max_failures": 0.5}, set()),
    # What decides some.
    ({"rl__max_steps": 61}, {"rl"}),
    ({"rl__save_steps": 30}, {"rl"}),
    ({"arms__base__rl": {"beta": 0.1}, "arms__dr_grpo__rl__beta": 0.1, "arms__dr_grpo__varies": ["rl"]}, {"rl"}),
    ({"rewards__choice_accuracy__weight": 2.0}, {"rl"}),
    ({"rewards__soft_overlong__options__cache": 2}, {"rl"}),
    ({"rewards__soft_overlong": GONE}, {"rl"}),
    ({"sft__max_steps": 1201}, {"sft", "rl"}),
    ({"sft__per_seed": True}, {"sft", "rl"}),
    ({"model__width": 64}, {"model", "sft", "rl"}),
    ({"model__seed": 1}, {"model", "sft", "rl"}),
    ({"evaluation__num_samples": 4}, {"evaluation"}),
    ({"evaluation__seed": 4}, {"evaluation"}),
    ({"data__seed": 3}, EVERY),
    ({"data__splits__test": 300}, EVERY),
]


@pytest.mark.parametrize(
    ("edits", "changed"), EDITS, ids=lambda value: str(sorted(value) if isinstance(value, set) else value)[:60]
)
def test_an_edit_changes_the_fingerprints_of_what_it_decides(edits: dict, changed: set[str]):
    after = ids(study(**edits))
    assert {name for name, value in ids(BEFORE).items() if after[name] != value} == changed


def test_prompts_that_state_the_format_make_another_evaluation():
    arms = study(arms={"base": {}, "bare": {"sft": None, "varies": ["sft"]}}).arms
    assert evaluation_id(BEFORE, arms["bare"].recipe) != evaluation_id(BEFORE, arms["base"].recipe)


def test_a_fingerprint_is_eight_hex_digits_and_the_same_every_time():
    assert all(re.fullmatch("[0-9a-f]{8}", value) for value in ids(BEFORE).values())
    assert ids(BEFORE) == ids(study())


def test_values_written_in_another_order_or_by_default_are_the_same():
    rewards = {"rewards": {"soft_overlong": {"weight": 0, "options": {"cache": 4, "max_completion_length": 16}}}}
    reordered = study(arms={"base": {"rl": {"top_p": 1}, **rewards}, "x": {"rl": {"beta": 1}, "varies": ["rl"]}})
    assert ids(reordered) == ids(BEFORE)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=5, unique=True))
def test_every_seed_has_an_rl_fingerprint_of_its_own(seeds: list[int]):
    assert len({rl_id(BEFORE, arm, seed) for arm in BEFORE.arms for seed in seeds}) == len(BEFORE.arms) * len(seeds)


def test_the_warm_start_is_shared_by_arms_and_seeds_unless_it_is_per_seed():
    shared = {sft_policy(BEFORE, arm.recipe, seed) for arm in BEFORE.arms.values() for seed in BEFORE.seeds}
    assert shared == {f"sft/{sft_id(BEFORE, BEFORE.arms['base'].recipe)}"}
    own = study(sft__per_seed=True)
    recipe = own.arms["base"].recipe
    assert [sft_policy(own, recipe, seed) for seed in (1, 2)] == [f"sft/{sft_id(own, recipe)}/seed{k}" for k in (1, 2)]


def test_an_arm_with_another_warm_start_shares_none():
    other = study(arms__dr_grpo__sft={"max_steps": 3}, arms__dr_grpo__varies=["rl", "sft"])
    starts = {name: sft_policy(other, arm.recipe, 1) for name, arm in other.arms.items()}
    assert starts["dr_grpo"] != starts["base"] == starts["accuracy_only"]


def test_an_arm_without_a_warm_start():
    cold = study(arms__dr_grpo__sft=None, arms__dr_grpo__varies=["rl", "sft"])
    recipe = cold.arms["dr_grpo"].recipe
    assert sft_policy(cold, recipe, 1) is None
    with pytest.raises(ValueError, match="no sft section"):
        sft_id(cold, recipe)
    assert rl_id(cold, "dr_grpo", 1) != rl_id(BEFORE, "dr_grpo", 1)
    assert model_policy(cold, recipe) == model_policy(BEFORE, BEFORE.arms["base"].recipe)


def test_a_hub_model_before_training_depends_on_neither_data_nor_adapters():
    hub = {"kind": "hub", "name": "x/y-1B"}
    plain = study(model=hub)
    before = model_id(plain, plain.arms["base"].recipe)
    for edits in ({"model": {**hub, "lora": {"r": 4}}}, {"model": hub, "data__seed": 5}):
        after = study(**edits)
        assert model_id(after, after.arms["base"].recipe) == before
        assert rl_id(after, "base", 1) != rl_id(plain, "base", 1)
    pinned = study(model={**hub, "revision": "abc"})
    assert model_id(pinned, pinned.arms["base"].recipe) != before


def test_recipes_are_equal_when_all_their_values_are():
    names = ("base", "accuracy_only")
    assert len({recipe_id(BEFORE.arms[name].recipe) for name in names}) == 2
    assert recipe_id(study().arms["base"].recipe) == recipe_id(BEFORE.arms["base"].recipe)


SOURCES = {
    "__init__.py": '"""Package."""\n',
    "stage.py": '"""Stage."""\nfrom rlassay.tools import helper\nimport rlassay.plain\n\n\ndef run():\n    """Doc."""\n'
    "    # why\n    from rlassay.lazy import late\n    return helper() + late()\n",
    "plain.py": "from .sibling import S\nVALUE = 1\n",
    "sibling.py": "S = 1\n",
    "lazy.py": "def late():\n    return 1\n",
    "tools/__init__.py": "from rlassay.tools.helpers import _help as helper\nfrom rlassay.tools.others import other\n",
    "tools/helpers.py": "from ..deep import D\n\n\ndef _help():\n    return D\n",
    "tools/others.py": "def other():\n    return 1\n",
    "deep.py": "D = 1\n",
    "unrelated.py": "U = 1\n",
    "config/__init__.py": "C = 1\n",
    "config/study.py": "class Study: ...\n",
}
USED = ["stage.py", "plain.py", "sibling.py", "lazy.py", "tools/helpers.py", "deep.py"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package called rlassay."""
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def after(package: Path, name: str, text: str) -> str:
    """The digest of the stage once a file is rewritten."""
    (package / name).write_text(text)
    return code_digest("rlassay.stage", package=package)


@pytest.mark.parametrize("name", USED)
def test_a_statement_in_any_module_that_a_stage_uses_changes_its_digest(package: Path, name: str):
    before = code_digest("rlassay.stage", package=package)
    assert after(package, name, SOURCES[name] + "ADDED = 2\n") != before
    assert after(package, name, SOURCES[name]) == before


@pytest.mark.parametrize("name", USED)
def test_comments_docstrings_and_layout_do_not(package: Path, name: str):
    before = code_digest("rlassay.stage", package=package)
    text = (
        SOURCES[name]
        .replace('"""Doc."""', '"""Another."""')
        .replace("# why", "# because")
        .replace("\n\n\n", "\n\n\n\n")
    )
    documented = re.sub(r"(def \w+\(\):\n)(    return)", r'\1    """New."""\n\2', text)
    assert after(package, name, f"# top\n{documented}# bottom\n") == before


@pytest.mark.parametrize("name", ["unrelated.py", "tools/others.py", "tools/__init__.py", "config/__init__.py"])
def test_modules_that_a_stage_does_not_use_do_not(package: Path, name: str):
    before = code_digest("rlassay.stage", package=package)
    assert after(package, name, SOURCES[name] + "ADDED = 2\n") == before


def test_a_module_that_is_named_in_a_text_counts(package: Path):
    before = after(package, "stage.py", 'SERVER = "rlassay.unrelated"\n')
    assert after(package, "unrelated.py", "U = 2\n") != before


@pytest.mark.parametrize("text", ["rlassay.gone", "see rlassay.unrelated", "rlassay.", "rlassay.config.study"])
def test_other_texts_do_not(package: Path, text: str):
    before = after(package, "stage.py", f"SERVER = {text!r}\n")
    assert after(package, "unrelated.py", "U = 2\n") == after(package, "config/study.py", "C = 2\n") == before


@pytest.mark.parametrize("server", ["rewards/math_worker.py", "rewards/serving.py"])
def test_what_rewards_start_processes_by_belongs_to_training_and_scoring(tmp_path: Path, server: str):
    package = shutil.copytree(PACKAGE, tmp_path / "rlassay", ignore=shutil.ignore_patterns("__pycache__"))
    stages = ("rlassay.training.rl", "rlassay.evaluation.score")
    before = [code_digest(stage, package=package) for stage in stages]
    (package / server).write_text((package / server).read_text() + "\nADDED = 2\n")
    assert all(code_digest(stage, package=package) != old for stage, old in zip(stages, before, strict=True))


def test_the_config_tree_is_left_out_since_its_values_have_fingerprints(package: Path):
    before = after(package, "stage.py", "from rlassay.config.study import Study\nfrom rlassay.config import C\n")
    (package / "config/study.py").write_text("class Study:\n    x = 1\n")
    assert code_digest("rlassay.stage", package=package) == before
    assert code_digest("rlassay.config.study", package=package) == code_digest(package=package)


def test_tracking_is_left_out_since_it_changes_no_result(package: Path):
    (package / "tracking").mkdir()
    (package / "tracking/__init__.py").write_text("def follow(): ...\n")
    before = after(package, "stage.py", "from rlassay.tracking import follow\n")
    (package / "tracking/__init__.py").write_text("def follow():\n    return 1\n")
    assert code_digest("rlassay.stage", package=package) == before


def test_a_missing_module_is_named(package: Path):
    with pytest.raises(ValueError, match=r"no module 'rlassay\.gone'"):
        code_digest("rlassay.gone", package=package)
    with pytest.raises(ValueError, match=r"no module 'rlassay\.gone\.deep'"):
        after(package, "stage.py", "import rlassay.gone.deep\n")


def test_circular_imports_end(package: Path):
    (package / "deep.py").write_text("from rlassay.stage import run\nD = 1\n")
    assert code_digest("rlassay.stage", "rlassay.deep", package=package) == code_digest("rlassay.deep", package=package)


def test_the_real_package_can_be_read():
    assert re.fullmatch("[0-9a-f]{8}", code_digest("rlassay.records", "rlassay.rewards"))
    assert (PACKAGE / "records.py").is_file()

"""Code digests change with the statements of the code that a stage uses, and with nothing else."""

import importlib
import inspect
import re
import shutil
from pathlib import Path

import pytest

from rlassay.cli.stages import STAGES
from rlassay.config.fingerprints import PACKAGE, code_digest

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


@pytest.mark.parametrize(
    "server",
    ["rewards/sandbox/worker.py", "models/servers.py", "models/hub.py"],
)
def test_what_rewards_start_processes_by_belongs_to_training_and_scoring(tmp_path: Path, server: str):
    package = shutil.copytree(PACKAGE, tmp_path / "rlassay", ignore=shutil.ignore_patterns("__pycache__"))
    stages = ("rlassay.training.rl", "rlassay.evaluation.score")
    before = [code_digest(stage, package=package) for stage in stages]
    (package / server).write_text((package / server).read_text() + "\nADDED = 2\n")
    assert all(code_digest(stage, package=package) != old for stage, old in zip(stages, before, strict=True))


STAGE_FILES = {
    "prepare_data": "data/prepare.py",
    "sft_train": "training/sft.py",
    "rl_train": "training/rl.py",
    "generate": "evaluation/generate.py",
    "score": "evaluation/score.py",
    "held_out_curve": "evaluation/curve.py",
    "decide": "report/decide.py",
    "ablation_report": "report/run.py",
}


USED_BY = {"ablation_report": ("decide",), "generate": ("held_out_curve",), "score": ("held_out_curve",)}
"""Stage -> others that run its code: looks compare arms as the report does, held-out curves answer and score."""


@pytest.mark.parametrize("edited", STAGE_FILES)
def test_editing_what_one_stage_runs_changes_the_digest_of_that_stage_alone(tmp_path: Path, edited: str):
    package = shutil.copytree(PACKAGE, tmp_path / "rlassay", ignore=shutil.ignore_patterns("__pycache__"))
    before = {name: code_digest(stage.module, package=package) for name, stage in STAGES.items()}
    file = package / STAGE_FILES[edited]
    file.write_text(file.read_text() + "\nADDED = 2\n")
    after = {name: code_digest(stage.module, package=package) for name, stage in STAGES.items()}
    assert {name for name in STAGES if after[name] != before[name]} == {edited, *USED_BY.get(edited, ())}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_a_function_of_the_module_whose_code_is_digested(stage: str):
    chosen = STAGES[stage]
    imported = re.findall(r"from (rlassay\.\S+) import (run_\w+)", inspect.getsource(chosen.run))
    assert [getattr(importlib.import_module(module), name).__module__ for module, name in imported] == [chosen.module]


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
